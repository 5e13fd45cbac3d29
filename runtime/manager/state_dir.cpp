#include "runtime/manager/state_dir.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>

namespace sublet::manager {
namespace {

namespace fs = std::filesystem;

Error cannot(const std::string& what, const fs::path& path) {
  return {Errc::io_error, "cannot " + what + " " + path.string() + ": " + std::strerror(errno)};
}

}  // namespace

Result<std::unique_ptr<StateDir>> StateDir::open(const std::string& path) {
  if (path.empty()) {
    std::error_code error;
    const fs::path parent = fs::temp_directory_path(error);
    std::string pattern = (parent / "sublet-manager-XXXXXX").string();
    if (error || ::mkdtemp(pattern.data()) == nullptr) return cannot("make the directory", pattern);
    return std::unique_ptr<StateDir>(new StateDir(pattern, true));
  }
  if (::mkdir(path.c_str(), S_IRWXU) != 0 && errno != EEXIST) return cannot("make the directory", path);
  auto state = std::unique_ptr<StateDir>(new StateDir(fs::absolute(path), false));
  const fs::path lock = state->path_ / "lock";
  state->lock_.reset(::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, S_IRUSR | S_IWUSR));
  if (!state->lock_.valid()) return cannot("open", lock);
  if (::flock(state->lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return cannot("lock", lock);
    return Error(Errc::busy, "another manager uses " + path + "; give this one another --state-dir");
  }
  return state;
}

StateDir::~StateDir() {
  if (!temporary_) return;
  std::error_code ignored;  // The system clears its temporary directory.
  fs::remove_all(path_, ignored);
}

Status write_whole(const fs::path& path, const std::string& text) {
  const fs::path part = path.string() + ".part";
  std::ofstream out(part, std::ios::trunc);
  out << text;
  out.close();
  if (!out || std::rename(part.c_str(), path.c_str()) != 0) return cannot("write", path);
  return {};
}

}  // namespace sublet::manager
