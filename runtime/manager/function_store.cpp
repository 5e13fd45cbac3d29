#include "runtime/manager/function_store.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <span>

#include "runtime/base/digest.hpp"
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

Status write_file(const fs::path& path, const std::string& bytes) {
  const fs::path part = path.string() + ".part";
  std::ofstream out(part, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  out.close();
  std::error_code error;
  if (out) fs::rename(part, path, error);
  if (out && !error) return {};
  const std::string why = error ? error.message() : std::strerror(errno);
  fs::remove(part, error);
  return Error(Errc::io_error, "cannot write " + path.string() + ": " + why);
}

Error unknown(const std::string& what) {
  return {Errc::not_found, "no function " + what + " is deployed"};
}

}  // namespace

Result<std::unique_ptr<FunctionStore>> FunctionStore::open(const fs::path& directory) {
  std::error_code error;
  fs::remove_all(directory, error);
  if (!error) fs::create_directories(directory, error);
  if (error) {
    return Error(Errc::io_error,
                 "cannot prepare the directory " + directory.string() + ": " + error.message());
  }
  return std::unique_ptr<FunctionStore>(new FunctionStore(directory));
}

fs::path FunctionStore::file_of(std::uint32_t id) const {
  return directory_ / std::to_string(id);
}

Result<FunctionStore::Deployed> FunctionStore::deploy(const std::string& name, const std::string& version,
                                                      const std::string& digest, const std::string& bytes) {
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
  if (bytes.empty())
    return Error(Errc::invalid_argument, "the body must be the function's library; it is empty");
  const std::string actual = to_hex(sha256(std::as_bytes(std::span(bytes))));
  if (actual != to_hex(claimed)) {
    return Error(Errc::invalid_argument, "the body's SHA-256 is " + actual +
                                             ", not what Sublet-Digest says: it was "
                                             "changed on the way");
  }
  if (const auto known = find(name, version)) {
    if (known->digest == actual) return Deployed{*known, false};
    return Error(
        Errc::already_exists,
        name + "@" + version + " is deployed with other bytes; choose another version, or remove it first");
  }
  if (functions_.size() >= limits::functions_max) {
    return Error(Errc::queue_full,
                 std::to_string(functions_.size()) + " functions are deployed; remove some first");
  }
  const std::uint32_t id = next_id_;
  if (Status written = write_file(file_of(id), bytes); !written) return written.error();
  ++next_id_;
  return Deployed{functions_[id] = {id, name, version, actual, bytes.size()}, true};
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

Result<std::shared_ptr<const std::string>> FunctionStore::bytes(std::uint32_t id) {
  const auto found = functions_.find(id);
  if (found == functions_.end()) return unknown("with number " + std::to_string(id));
  if (auto shared = read_[id].lock()) return shared;
  auto text = std::make_shared<std::string>(found->second.bytes, '\0');
  std::ifstream in(file_of(id), std::ios::binary);
  if (!in.read(text->data(), static_cast<std::streamsize>(text->size()))) {
    return Error(Errc::io_error,
                 "the bytes of " + found->second.name + " cannot be read from the state directory");
  }
  read_[id] = text;
  return std::shared_ptr<const std::string>(std::move(text));
}

Status FunctionStore::remove(std::uint32_t id) {
  if (functions_.erase(id) == 0) return unknown("with number " + std::to_string(id));
  read_.erase(id);
  std::error_code ignored;  // A file left behind is of no function and goes at the next start.
  fs::remove(file_of(id), ignored);
  return {};
}

api::Functions FunctionStore::list() const {
  api::Functions all;
  for (const auto& [id, function] : functions_) all.functions.push_back(function);
  return all;
}

}  // namespace sublet::manager
