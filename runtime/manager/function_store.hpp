#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "runtime/base/result.hpp"
#include "runtime/control/api.hpp"

namespace sublet::manager {

/// The deployed functions: what they are in memory, their bytes in files of one directory, which the
/// store empties at its start. Thread safety: one thread at a time.
class FunctionStore {
 public:
  /// @retval Errc::io_error The directory cannot be made, emptied or written.
  [[nodiscard]] static Result<std::unique_ptr<FunctionStore>> open(const std::filesystem::path& directory);

  struct Deployed {
    api::FunctionInfo info;
    bool fresh = false;  ///< False: the same bytes were there already.
  };
  /// @param digest What the sender says of the bytes: 64 hexadecimal digits.
  /// @retval Errc::invalid_argument Name, version or digest are malformed, or the digest is another one.
  /// @retval Errc::already_exists   Other bytes are deployed under this version.
  [[nodiscard]] Result<Deployed> deploy(const std::string& name, const std::string& version,
                                        const std::string& digest, const std::string& bytes);
  [[nodiscard]] Result<api::FunctionInfo> find(const std::string& name, const std::string& version) const;
  /// "name@version", or "name" for the version deployed last.
  [[nodiscard]] Result<api::FunctionInfo> resolve(const std::string& text) const;
  [[nodiscard]] Result<api::FunctionInfo> info(std::uint32_t id) const;
  /// One copy for all who read at the same time.
  [[nodiscard]] Result<std::shared_ptr<const std::string>> bytes(std::uint32_t id);
  [[nodiscard]] Status remove(std::uint32_t id);
  [[nodiscard]] api::Functions list() const;

 private:
  explicit FunctionStore(std::filesystem::path directory) : directory_(std::move(directory)) {}
  [[nodiscard]] std::filesystem::path file_of(std::uint32_t id) const;

  std::filesystem::path directory_;
  std::uint32_t next_id_ = 1;
  std::map<std::uint32_t, api::FunctionInfo> functions_;
  std::map<std::uint32_t, std::weak_ptr<const std::string>> read_;
};

}  // namespace sublet::manager
