#include "runtime/manager/sqlite.hpp"

#include <cstring>

namespace sublet::manager::sqlite {

Error failure(sqlite3* database, int code) {
  const char* path = sqlite3_db_filename(database, "main");
  std::string text =
      std::string(path != nullptr && *path != '\0' ? path : "the database") + ": " + sqlite3_errmsg(database);
  switch (code & 0xFF) {
    case SQLITE_FULL:
      text += "; make room on the disk";
      break;
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_CANTOPEN:
      text += "; the manager must be able to write the directory and every file in it";
      break;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      text += "; restore a backup, or start with another --state-dir";
      break;
    case SQLITE_IOERR:
      text += std::string(" (") + std::strerror(sqlite3_system_errno(database)) + ")";
      break;
    default:
      break;
  }
  return {Errc::io_error, text};
}

Status execute(sqlite3* database, const std::string& sql) {
  const int code = sqlite3_exec(database, sql.c_str(), nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? Status() : failure(database, code);
}

Result<Statement> Statement::prepare(sqlite3* database, std::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  const int code = sqlite3_prepare_v3(database, sql.data(), static_cast<int>(sql.size()),
                                      SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
  if (code != SQLITE_OK) return failure(database, code);
  return Statement(statement);
}

Result<bool> Statement::step() {
  const int code = sqlite3_step(statement_.get());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return failure(sqlite3_db_handle(statement_.get()), code);
}

Status Statement::run() {
  for (;;) {
    const Result<bool> row = step();
    if (row && *row) continue;
    sqlite3_reset(statement_.get());
    return row ? Status() : Status(row.error());
  }
}

std::uint64_t Statement::number(int column) const noexcept {
  return static_cast<std::uint64_t>(integer(column));
}

std::int64_t Statement::integer(int column) const noexcept {
  return sqlite3_column_int64(statement_.get(), column);
}

std::string Statement::text(int column) const {
  const auto bytes = blob(column);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::span<const std::byte> Statement::blob(int column) const noexcept {
  const void* bytes = sqlite3_column_blob(statement_.get(), column);
  const int size = sqlite3_column_bytes(statement_.get(), column);
  return {static_cast<const std::byte*>(bytes), static_cast<std::size_t>(size)};
}

void Statement::bind_one(int index, std::uint64_t value) {
  bind_one(index, static_cast<std::int64_t>(value));
}

void Statement::bind_one(int index, std::int64_t value) {
  const int code = sqlite3_bind_int64(statement_.get(), index, value);
  SUBLET_ASSERT(code == SQLITE_OK);
}

void Statement::bind_one(int index, const std::string& value) {
  const int code =
      sqlite3_bind_text(statement_.get(), index, value.data(), static_cast<int>(value.size()), SQLITE_STATIC);
  SUBLET_ASSERT(code == SQLITE_OK);
}

void Statement::bind_one(int index, std::span<const std::byte> value) {
  const int code =
      sqlite3_bind_blob(statement_.get(), index, value.data(), static_cast<int>(value.size()), SQLITE_STATIC);
  SUBLET_ASSERT(code == SQLITE_OK);
}

}  // namespace sublet::manager::sqlite
