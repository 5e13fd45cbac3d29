#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/base/result.hpp"
#include "runtime/control/api.hpp"

namespace sublet::manager {

/// The deployed functions: what they are in memory (and, through the caller, in the database), their bytes
/// in files of one directory. Thread safety: one thread at a time; write() and read() on any thread.
class FunctionStore {
 public:
  /// Takes up what was deployed before and removes files that belong to none of it.
  /// @retval Errc::io_error The directory cannot be made, read or written.
  [[nodiscard]] static Result<std::unique_ptr<FunctionStore>> open(
      const std::filesystem::path& directory, const std::vector<api::FunctionInfo>& deployed = {},
      std::uint32_t next_id = 1);
  /// Those whose bytes are not there any more: deployed again they are whole.
  [[nodiscard]] const std::vector<std::string>& damaged() const noexcept { return damaged_; }

  struct Upload {
    api::FunctionInfo info;
    bool known = false;  ///< The same bytes are deployed already: nothing more to do.
  };
  /// Makes room for a function: write() its bytes to file_of(), then finish() or abandon() it.
  /// @param digest What the sender says of the bytes: 64 hexadecimal digits.
  /// @retval Errc::invalid_argument Name, version or digest are malformed.
  /// @retval Errc::already_exists   Other bytes are deployed under this version.
  /// @retval Errc::busy             Somebody else is deploying it.
  [[nodiscard]] Result<Upload> begin(const std::string& name, const std::string& version,
                                     const std::string& digest, std::uint64_t bytes);
  /// Checks the bytes against the digest and writes them so that they outlive a crash. Any thread.
  /// @retval Errc::invalid_argument They have another digest.
  [[nodiscard]] static Status write(const std::filesystem::path& file, const std::string& digest,
                                    const std::string& bytes);
  void finish(const api::FunctionInfo& info);
  void abandon(const api::FunctionInfo& info);

  [[nodiscard]] Result<api::FunctionInfo> find(const std::string& name, const std::string& version) const;
  /// "name@version", or "name" for the version deployed last.
  [[nodiscard]] Result<api::FunctionInfo> resolve(const std::string& text) const;
  [[nodiscard]] Result<api::FunctionInfo> info(std::uint32_t id) const;
  [[nodiscard]] std::filesystem::path file_of(std::uint32_t id) const;
  /// The whole file. Any thread.
  [[nodiscard]] static Result<std::shared_ptr<const std::string>> read(const std::filesystem::path& file,
                                                                       std::uint64_t bytes);
  /// It is deployed no more. Its bytes stay until drop_bytes().
  [[nodiscard]] Status remove(std::uint32_t id);
  /// @pre The function is removed. What cannot be deleted goes at the next open().
  void drop_bytes(std::uint32_t id) const;
  [[nodiscard]] api::Functions list() const;
  [[nodiscard]] std::size_t size() const noexcept { return functions_.size(); }

 private:
  explicit FunctionStore(std::filesystem::path directory) : directory_(std::move(directory)) {}
  [[nodiscard]] Status take_up(const std::vector<api::FunctionInfo>& deployed);

  std::filesystem::path directory_;
  std::uint32_t next_id_ = 1;
  std::map<std::uint32_t, api::FunctionInfo> functions_;
  std::map<std::pair<std::string, std::string>, std::uint32_t> uploads_;
  std::vector<std::string> damaged_;
};

}  // namespace sublet::manager
