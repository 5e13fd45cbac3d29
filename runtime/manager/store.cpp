#include "runtime/manager/store.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "runtime/base/file_descriptor.hpp"
#include "runtime/base/limits.hpp"
#include "runtime/manager/store_impl.hpp"

namespace sublet::manager {
namespace {

using sqlite::Statement;

constexpr int application_id = 0x53424C54;  // "SBLT": a database of Sublet's manager.
constexpr std::int64_t schema_version = 3;

constexpr const char* schema = R"(
  CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
  CREATE TABLE nodes(id INTEGER PRIMARY KEY, name TEXT, machine TEXT, cores INTEGER, memory_bytes INTEGER,
    worker_region_bytes INTEGER, version TEXT, gpus INTEGER, key BLOB);
  CREATE TABLE orders(name TEXT PRIMARY KEY, cordoned INTEGER, drained INTEGER) WITHOUT ROWID;
  CREATE TABLE functions(id INTEGER PRIMARY KEY, name TEXT, version TEXT, digest TEXT, bytes INTEGER);
  CREATE TABLE leases(id INTEGER PRIMARY KEY, tenant TEXT, function INTEGER, function_name TEXT,
    workers INTEGER, cores INTEGER, memory_bytes INTEGER, gpus INTEGER, ttl_ms INTEGER, transports TEXT,
    placement TEXT, granted_ns INTEGER, expiry_ns INTEGER, node_lost INTEGER, workers_used INTEGER,
    lease_ns INTEGER, places TEXT, reason TEXT, ended_ns INTEGER, lent TEXT, prefer TEXT, forbid TEXT);
  CREATE INDEX leases_active ON leases(id) WHERE reason='';
  CREATE TABLE held(node INTEGER, worker INTEGER, lease INTEGER, cores INTEGER, memory_bytes INTEGER,
    gpus INTEGER, ending INTEGER, loaded INTEGER, since_ns INTEGER, endpoints TEXT,
    PRIMARY KEY(node, worker)) WITHOUT ROWID;
  CREATE TABLE usage(id INTEGER PRIMARY KEY, lease INTEGER, calls_started INTEGER, calls INTEGER,
    execution_ns INTEGER, hot_ns INTEGER);
  CREATE INDEX usage_lease ON usage(lease);
  CREATE TABLE totals(tenant TEXT, function_name TEXT, leases INTEGER, workers INTEGER,
    calls_started INTEGER, calls INTEGER, execution_ns INTEGER, hot_ns INTEGER, lease_ns INTEGER,
    core_ns INTEGER, gpu_ns INTEGER, PRIMARY KEY(tenant, function_name)) WITHOUT ROWID;
)";

Error cannot_open(const std::filesystem::path& file, const std::string& why) {
  return {Errc::io_error, file.string() + ": " + why};
}

Result<std::int64_t> pragma(sqlite3* database, const char* name) {
  Result<Statement> read = Statement::prepare(database, std::string("PRAGMA ") + name);
  if (!read) return read.error();
  const Result<bool> row = read->step();
  if (!row) return row.error();
  return *row ? read->integer(0) : 0;
}

Result<sqlite::Handle> connect(const std::filesystem::path& file, int flags) {
  sqlite3* database = nullptr;
  const int code = sqlite3_open_v2(file.c_str(), &database, flags | SQLITE_OPEN_NOMUTEX, nullptr);
  sqlite::Handle handle(database);
  if (code != SQLITE_OK) return sqlite::failure(database, code);
  sqlite3_busy_timeout(database, database_busy_ms);
  return handle;
}

/// The file is made by us so that nobody else can ever read it.
Status make_file(const std::filesystem::path& file) {
  const FileDescriptor made(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, S_IRUSR | S_IWUSR));
  if (!made.valid()) {
    return cannot_open(file, std::string(std::strerror(errno)) +
                                 "; the manager must be able to write the directory and every file in it");
  }
  struct stat info {};
  if (::fstat(made.get(), &info) != 0 || !S_ISREG(info.st_mode)) return cannot_open(file, "is no file");
  if ((info.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return cannot_open(file, "others can read or write it, and it holds the nodes' keys; chmod 600 it");
  }
  return {};
}

Status check_whole(sqlite3* database, const std::filesystem::path& file) {
  Result<Statement> check = Statement::prepare(database, "PRAGMA quick_check(1)");
  if (!check) return check.error();
  const Result<bool> row = check->step();
  if (!row) return row.error();
  if (*row && check->text(0) == "ok") return {};
  return cannot_open(file, "is damaged (" + (*row ? check->text(0) : "no answer") +
                               "); restore a backup, or start with another --state-dir");
}

/// Makes the tables in a new file, or checks that those of an old one are ours.
Status prepare_schema(sqlite3* database, const std::filesystem::path& file) {
  const Result<std::int64_t> tables = pragma(database, "schema_version");
  if (!tables) return tables.error();
  const Result<std::int64_t> owner = pragma(database, "application_id");
  if (!owner) return owner.error();
  const Result<std::int64_t> version = pragma(database, "user_version");
  if (!version) return version.error();
  if (*tables != 0 && *owner != application_id) {
    return cannot_open(file, "is a database of another program; start with another --state-dir");
  }
  if (*version > schema_version) {
    return cannot_open(file, "was written by a newer sublet-manager (schema " + std::to_string(*version) +
                                 ", this one knows " + std::to_string(schema_version) +
                                 "); update this program");
  }
  if (*tables != 0) {
    if (Status whole = check_whole(database, file); !whole || *version == schema_version) return whole;
    std::string steps = "BEGIN IMMEDIATE;";
    // Of older leases nobody knows who lent to them (null): then each node may account for them.
    if (*version < 2) steps += "ALTER TABLE leases ADD COLUMN lent TEXT;";
    // Older leases had nothing to prefer or to forbid (null, which reads as an empty list).
    steps += "ALTER TABLE leases ADD COLUMN prefer TEXT; ALTER TABLE leases ADD COLUMN forbid TEXT;";
    return sqlite::execute(database,
                           steps + "PRAGMA user_version=" + std::to_string(schema_version) + ";COMMIT");
  }
  return sqlite::execute(database, std::string("BEGIN IMMEDIATE;") + schema +
                                       "PRAGMA application_id=" + std::to_string(application_id) +
                                       ";PRAGMA user_version=" + std::to_string(schema_version) + ";COMMIT");
}

Status each_row(sqlite3* database, const std::string& sql, const std::function<void(Statement&)>& take) {
  Result<Statement> select = Statement::prepare(database, sql);
  if (!select) return select.error();
  for (;;) {
    const Result<bool> row = select->step();
    if (!row) return row.error();
    if (!*row) return {};
    take(*select);
  }
}

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find(at, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

std::uint64_t number_in(std::string_view text) {
  std::uint64_t number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

lease::NodeRow node_in(Statement& row) {
  lease::NodeRow node{.id = row.number(0),
                      .about = {.name = row.text(1),
                                .machine = row.text(2),
                                .cores = static_cast<std::uint32_t>(row.number(3)),
                                .memory_bytes = row.number(4),
                                .worker_region_bytes = row.number(5),
                                .version = row.text(6),
                                .gpus = static_cast<std::uint32_t>(row.number(7))}};
  const auto key = row.blob(8);
  std::copy_n(key.begin(), std::min(key.size(), node.key.size()), node.key.begin());
  return node;
}

lease::LeaseRow lease_in(Statement& row) {
  lease::LeaseRow lease{.id = row.number(0),
                        .function = static_cast<std::uint32_t>(row.number(2)),
                        .function_name = row.text(3),
                        .request = {.function = row.text(3),
                                    .tenant = row.text(1),
                                    .workers = static_cast<std::uint32_t>(row.number(4)),
                                    .cores = static_cast<std::uint32_t>(row.number(5)),
                                    .memory_bytes = row.number(6),
                                    .ttl_ms = row.number(8),
                                    .transports = {.require = split(row.text(9), ','),
                                                   .prefer = split(row.text(20), ','),
                                                   .forbid = split(row.text(21), ',')},
                                    .gpus = static_cast<std::uint32_t>(row.number(7)),
                                    .placement = row.text(10)},
                        .granted = lease::from_ns(row.integer(11)),
                        .expiry = lease::from_ns(row.integer(12)),
                        .node_lost = row.number(13) != 0,
                        .workers_used = static_cast<std::uint32_t>(row.number(14)),
                        .lease_time = std::chrono::nanoseconds(row.integer(15)),
                        .reason = row.text(17),
                        .ended = lease::from_ns(row.integer(18))};
  for (const std::string& place : split(row.text(16), ',')) {
    const std::vector<std::string> parts = split(place, ':');
    const auto key = [&](std::size_t at) {
      return parts.size() > at + 1
                 ? lease::HeldKey{number_in(parts[at]), static_cast<std::uint32_t>(number_in(parts[at + 1]))}
                 : lease::HeldKey();
    };
    lease.places.push_back({key(0), key(2)});
  }
  return lease;
}

lease::HeldRow held_in(Statement& row) {
  lease::HeldRow held{.key = {row.number(0), static_cast<std::uint32_t>(row.number(1))},
                      .lease = row.number(2),
                      .cores = static_cast<std::uint32_t>(row.number(3)),
                      .memory_bytes = row.number(4),
                      .gpus = static_cast<std::uint32_t>(row.number(5)),
                      .ending = row.number(6) != 0,
                      .loaded = static_cast<std::uint32_t>(row.number(7)),
                      .since = lease::from_ns(row.integer(8))};
  for (const std::string& line : split(row.text(9), '\n')) {
    const std::size_t equals = line.find('=');
    if (equals != std::string::npos) held.endpoints[line.substr(0, equals)] = line.substr(equals + 1);
  }
  return held;
}

void take_meta(Loaded& loaded, Statement& row) {
  const std::string key = row.text(0);
  if (key == meta_last) loaded.last = lease::from_ns(row.integer(1));
  if (key == meta_next_id) loaded.next_id = row.number(1);
  if (key == meta_next_function) loaded.next_function = static_cast<std::uint32_t>(row.number(1));
  if (key == meta_boot) loaded.boot_id = row.text(1);
  if (key == meta_clock) loaded.clock = std::chrono::nanoseconds(row.integer(1));
}

}  // namespace

Result<std::unique_ptr<Store>> Store::open(const std::filesystem::path& file) {
  if (Status made = make_file(file); !made) return made.error();
  auto impl = std::make_unique<Impl>();
  Result<sqlite::Handle> database = connect(file, SQLITE_OPEN_READWRITE);
  if (!database) return database.error();
  impl->database = *std::move(database);
  sqlite3* raw = impl->database.get();
  if (Status ready = prepare_schema(raw, file); !ready) return ready.error();
  const std::string settings =
      "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=0; "
      "PRAGMA cache_size=" +
      std::to_string(-limits::database_cache_kib) +
      "; PRAGMA journal_size_limit=" + std::to_string(limits::database_log_bytes);
  if (Status set = sqlite::execute(raw, settings); !set) return set.error();
  // After a sync that failed the system may show a log that the disk lacks parts of: nothing new rests on it.
  if (Status copied = sqlite::execute(raw, "PRAGMA wal_checkpoint(TRUNCATE)"); !copied) return copied.error();
  Result<std::unique_ptr<Writer>> writer = Writer::create(raw);
  if (!writer) return writer.error();
  impl->writer = *std::move(writer);
  for (auto* connection : {&impl->reader, &impl->checkpointer}) {
    Result<sqlite::Handle> made = connect(file, SQLITE_OPEN_READWRITE);
    if (!made) return made.error();
    *connection = *std::move(made);
  }
  const std::string log = file.string() + "-wal";
  impl->log.reset(::open(log.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, S_IRUSR | S_IWUSR));
  if (!impl->log.valid()) return cannot_open(log, std::strerror(errno));
  impl->start();
  return std::make_unique<Store>(std::move(impl));
}

Store::Store(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Store::~Store() = default;

void Store::interrupt() noexcept {
  sqlite3_interrupt(impl_->reader.get());
}

void Store::keep_ended(std::uint64_t ended_max) noexcept {
  impl_->writer->keep_ended(ended_max);
}

Status Store::set_clock(const std::string& boot_id, std::chrono::nanoseconds clock) {
  Result<Statement> meta =
      Statement::prepare(impl_->database.get(), "INSERT OR REPLACE INTO meta VALUES(?,?)");
  if (!meta) return meta.error();
  if (Status good = meta->bind(std::string(meta_boot), boot_id).run(); !good) return good;
  return meta->bind(std::string(meta_clock), std::int64_t{clock.count()}).run();
}

Result<Loaded> Store::load() {
  Loaded loaded;
  lease::Saved& saved = loaded.saved;
  const std::string newest_ended =
      "SELECT * FROM (SELECT * FROM leases WHERE reason<>'' ORDER BY id DESC LIMIT " +
      std::to_string(limits::leases_ended_max) + ") ORDER BY id";
  const std::pair<std::string, std::function<void(Statement&)>> parts[] = {
      {"SELECT key, value FROM meta", [&](Statement& row) { take_meta(loaded, row); }},
      {"SELECT * FROM nodes", [&](Statement& row) { saved.nodes.push_back(node_in(row)); }},
      {"SELECT * FROM orders",
       [&](Statement& row) {
         saved.orders.push_back({row.text(0), row.number(1) != 0, row.number(2) != 0});
       }},
      {newest_ended, [&](Statement& row) { saved.leases.push_back(lease_in(row)); }},
      {"SELECT * FROM leases WHERE reason=''",
       [&](Statement& row) { saved.leases.push_back(lease_in(row)); }},
      {"SELECT * FROM held", [&](Statement& row) { saved.held.push_back(held_in(row)); }},
      {"SELECT * FROM functions",
       [&](Statement& row) {
         loaded.functions.push_back({static_cast<std::uint32_t>(row.number(0)), row.text(1), row.text(2),
                                     row.text(3), row.number(4)});
       }},
  };
  for (const auto& [sql, take] : parts) {
    if (Status read = each_row(impl_->database.get(), sql, take); !read) return read.error();
  }
  return loaded;
}

}  // namespace sublet::manager
