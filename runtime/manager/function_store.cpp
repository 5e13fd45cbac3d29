#include "runtime/manager/function_store.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <set>
#include <span>

#include "runtime/base/digest.hpp"
#include "runtime/base/file_descriptor.hpp"
#include "runtime/base/limits.hpp"

namespace sublet::manager {
namespace {

namespace fs = std::filesystem;

// The path that reads bytes by number; a function of this name could not be read.
constexpr std::string_view reserved_name = "by-id";

bool lower_or_digit(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/// [a-z0-9][a-z0-9_.-]{0,63}
bool is_function_name(std::string_view text) noexcept {
  return !text.empty() && text.size() <= limits::name_bytes_max && lower_or_digit(text.front()) &&
         std::all_of(text.begin(), text.end(),
                     [](char c) { return lower_or_digit(c) || c == '_' || c == '.' || c == '-'; });
}

Error cannot_write(const fs::path& path) {
  return {Errc::io_error, "cannot write " + path.string() + ": " + std::strerror(errno)};
}

/// On the disk, with its name, when this returns.
Status write_through(const fs::path& path, const std::string& bytes) {
  const fs::path part = path.string() + ".part";
  FileDescriptor file(::open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, S_IRUSR | S_IWUSR));
  if (!file.valid()) return cannot_write(part);
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t count = ::write(file.get(), bytes.data() + done, bytes.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return cannot_write(part);
    done += static_cast<std::size_t>(count);
  }
  if (::fsync(file.get()) != 0 || std::rename(part.c_str(), path.c_str()) != 0) return cannot_write(path);
  const FileDescriptor directory(::open(path.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid() || ::fsync(directory.get()) != 0) return cannot_write(path);
  return {};
}

Error unknown(const std::string& what) {
  return {Errc::not_found, "no function " + what + " is deployed"};
}

}  // namespace

Result<std::unique_ptr<FunctionStore>> FunctionStore::open(const fs::path& directory,
                                                           const std::vector<api::FunctionInfo>& deployed,
                                                           std::uint32_t next_id) {
  std::error_code error;
  fs::create_directories(directory, error);
  if (error) {
    return Error(Errc::io_error,
                 "cannot prepare the directory " + directory.string() + ": " + error.message());
  }
  auto store = std::unique_ptr<FunctionStore>(new FunctionStore(directory));
  store->next_id_ = next_id;
  if (Status taken = store->take_up(deployed); !taken) return taken.error();
  return store;
}

Status FunctionStore::take_up(const std::vector<api::FunctionInfo>& deployed) {
  std::set<fs::path> ours;
  for (const api::FunctionInfo& function : deployed) {
    functions_[function.id] = function;
    next_id_ = std::max(next_id_, function.id + 1);
    const fs::path file = file_of(function.id);
    ours.insert(file);
    std::error_code error;
    if (fs::file_size(file, error) != function.bytes || error) {
      damaged_.push_back(function.name + "@" + function.version);
    }
  }
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory_, error)) {
    if (!ours.contains(entry.path())) fs::remove(entry.path(), error);
    if (error) break;
  }
  if (!error) return {};
  return Error(Errc::io_error, "cannot tidy the directory " + directory_.string() + ": " + error.message());
}

fs::path FunctionStore::file_of(std::uint32_t id) const {
  return directory_ / std::to_string(id);
}

Result<FunctionStore::Upload> FunctionStore::begin(const std::string& name, const std::string& version,
                                                   const std::string& digest, std::uint64_t bytes) {
  if (!is_function_name(name) || !is_function_name(version) || name == reserved_name) {
    return Error(
        Errc::invalid_argument,
        "name and version must each be 1 to 64 of a-z, 0-9, '_', '.' and '-', begin with a letter or "
        "digit, and the name not be 'by-id'");
  }
  Sha256 claimed{};
  if (!from_hex(digest, claimed)) {
    return Error(Errc::invalid_argument,
                 "the header Sublet-Digest must have the body's SHA-256 in 64 hex digits");
  }
  if (bytes == 0)
    return Error(Errc::invalid_argument, "the body must be the function's library; it is empty");
  if (uploads_.contains({name, version})) {
    return Error(Errc::busy, name + "@" + version + " is being deployed by another request; try again");
  }
  api::FunctionInfo info{0, name, version, to_hex(claimed), bytes};
  if (const auto known = find(name, version)) {
    if (known->digest != info.digest) {
      return Error(
          Errc::already_exists,
          name + "@" + version + " is deployed with other bytes; choose another version, or remove it first");
    }
    info = *known;
    std::error_code error;
    if (fs::file_size(file_of(info.id), error) == info.bytes && !error) return Upload{info, true};
  } else {
    if (functions_.size() + uploads_.size() >= limits::functions_max) {
      return Error(Errc::queue_full,
                   std::to_string(functions_.size()) + " functions are deployed; remove some first");
    }
    info.id = next_id_++;
  }
  uploads_[{name, version}] = info.id;
  return Upload{info, false};
}

Status FunctionStore::write(const fs::path& file, const std::string& digest, const std::string& bytes) {
  const std::string actual = to_hex(sha256(std::as_bytes(std::span(bytes))));
  if (actual != digest) {
    return Error(Errc::invalid_argument, "the body's SHA-256 is " + actual +
                                             ", not what Sublet-Digest says: it was changed on the way");
  }
  Status written = write_through(file, bytes);
  if (!written) {
    std::error_code ignored;  // What is left goes at the next start.
    fs::remove(file.string() + ".part", ignored);
  }
  return written;
}

void FunctionStore::finish(const api::FunctionInfo& info) {
  uploads_.erase({info.name, info.version});
  functions_[info.id] = info;
}

void FunctionStore::abandon(const api::FunctionInfo& info) {
  uploads_.erase({info.name, info.version});
  if (!functions_.contains(info.id)) drop_bytes(info.id);
}

Result<api::FunctionInfo> FunctionStore::find(const std::string& name, const std::string& version) const {
  for (const auto& [id, function] : functions_) {
    if (function.name == name && function.version == version) return function;
  }
  return unknown("of this name and version");
}

Result<api::FunctionInfo> FunctionStore::resolve(const std::string& text) const {
  const std::size_t at = text.find('@');
  if (at != std::string::npos) return find(text.substr(0, at), text.substr(at + 1));
  for (auto it = functions_.rbegin(); it != functions_.rend(); ++it) {
    if (it->second.name == text) return it->second;
  }
  return unknown("of this name");
}

Result<api::FunctionInfo> FunctionStore::info(std::uint32_t id) const {
  const auto found = functions_.find(id);
  if (found == functions_.end()) return unknown("with number " + std::to_string(id));
  return found->second;
}

Result<std::shared_ptr<const std::string>> FunctionStore::read(const fs::path& file, std::uint64_t bytes) {
  auto text = std::make_shared<std::string>(bytes, '\0');
  std::ifstream in(file, std::ios::binary);
  if (!in.read(text->data(), static_cast<std::streamsize>(text->size()))) {
    return Error(Errc::io_error, "the function's bytes cannot be read from " + file.string() +
                                     "; deploy it again under the same name and version");
  }
  return std::shared_ptr<const std::string>(std::move(text));
}

Status FunctionStore::remove(std::uint32_t id) {
  if (functions_.erase(id) == 0) return unknown("with number " + std::to_string(id));
  return {};
}

void FunctionStore::drop_bytes(std::uint32_t id) const {
  std::error_code ignored;
  fs::remove(file_of(id), ignored);
}

api::Functions FunctionStore::list() const {
  api::Functions all;
  for (const auto& [id, function] : functions_) all.functions.push_back(function);
  return all;
}

}  // namespace sublet::manager
