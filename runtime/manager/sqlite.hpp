#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "runtime/base/assert.hpp"
#include "runtime/base/result.hpp"

/// SQLite's handles as types. What the disk or the file does is an error value; a statement that does not
/// fit its schema is our bug.
namespace sublet::manager::sqlite {

template <auto destroy>
struct Destroy {
  void operator()(auto* object) const noexcept { destroy(object); }
};
using Handle = std::unique_ptr<sqlite3, Destroy<&sqlite3_close_v2>>;

/// One prepared statement. Parameters and columns are numbered from 1 and 0, as SQLite does; text and blobs
/// are copied out. Thread safety: as its database, one thread at a time.
class Statement {
 public:
  Statement() = default;
  [[nodiscard]] static Result<Statement> prepare(sqlite3* database, std::string_view sql);

  /// Binds in the order of the parameters, all of them.
  template <typename... Values>
  Statement& bind(const Values&... values) {
    sqlite3_reset(statement_.get());
    int index = 0;
    (bind_one(++index, values), ...);
    SUBLET_ASSERT(index == sqlite3_bind_parameter_count(statement_.get()));
    return *this;
  }
  /// True: a row is there to be read. False: the end.
  [[nodiscard]] Result<bool> step();
  /// Steps to the end and is ready to be bound again.
  [[nodiscard]] Status run();

  [[nodiscard]] std::uint64_t number(int column) const noexcept;
  [[nodiscard]] std::int64_t integer(int column) const noexcept;
  [[nodiscard]] std::string text(int column) const;
  [[nodiscard]] std::span<const std::byte> blob(int column) const noexcept;  ///< Until the next step.

 private:
  explicit Statement(sqlite3_stmt* statement) noexcept : statement_(statement) {}
  void bind_one(int index, std::uint64_t value);
  void bind_one(int index, std::uint32_t value) { bind_one(index, std::uint64_t{value}); }
  void bind_one(int index, bool value) { bind_one(index, std::uint64_t{value}); }
  void bind_one(int index, std::int64_t value);
  void bind_one(int index, const std::string& value);  ///< Must live until the statement has run.
  void bind_one(int index, std::span<const std::byte> value);

  std::unique_ptr<sqlite3_stmt, Destroy<&sqlite3_finalize>> statement_;
};

/// What SQLite says of its last failure, as an error that names the file.
[[nodiscard]] Error failure(sqlite3* database, int code);
/// Runs statements without parameters and rows.
[[nodiscard]] Status execute(sqlite3* database, const std::string& sql);

}  // namespace sublet::manager::sqlite
