#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "runtime/base/file_descriptor.hpp"
#include "runtime/base/result.hpp"

namespace sublet::manager {

/// The manager's directory, of one manager at a time and readable by its user alone.
class StateDir {
 public:
  /// @param path Made when missing; empty: a new temporary one, removed with this object.
  /// @retval Errc::busy     Another manager uses it.
  /// @retval Errc::io_error It cannot be made or locked.
  [[nodiscard]] static Result<std::unique_ptr<StateDir>> open(const std::string& path);
  ~StateDir();
  StateDir(const StateDir&) = delete;
  StateDir& operator=(const StateDir&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }

 private:
  StateDir(std::filesystem::path path, bool temporary) : path_(std::move(path)), temporary_(temporary) {}

  std::filesystem::path path_;
  bool temporary_ = false;
  FileDescriptor lock_;
};

/// Writes `text` so that a reader sees all of it or no file.
[[nodiscard]] Status write_whole(const std::filesystem::path& path, const std::string& text);

}  // namespace sublet::manager
