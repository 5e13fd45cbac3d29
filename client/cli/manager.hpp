#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "client/cli/arguments.hpp"
#include "runtime/base/result.hpp"
#include "runtime/control/api.hpp"
#include "runtime/control/http_client.hpp"

namespace sublet::cli {

/// The manager gave no answer at all.
class Unreachable : public Exception {
 public:
  Unreachable(const std::string& url, const Error& error);
};

/// What the commands ask of the manager. Every call blocks at most its timeout, and throws Unreachable, or
/// sublet::Exception with the manager's refusal. Thread safety: one thread at a time.
class Manager {
 public:
  using Timeout = std::chrono::milliseconds;
  static constexpr Timeout usual_timeout{10'000};

  explicit Manager(std::string url, Timeout timeout = usual_timeout);
  explicit Manager(const Arguments& given) : Manager(given.manager()) {}

  /// The body of the answer.
  [[nodiscard]] std::string get(const std::string& path);
  std::string post(const std::string& path);
  void remove(const std::string& path);
  [[nodiscard]] api::FunctionInfo deploy(const std::string& name, const std::string& version,
                                         std::string library, Timeout timeout);

  template <typename Body>
  [[nodiscard]] Body read(const std::string& path) {
    return parse<Body>(get(path));
  }
  /// The body as a type; an answer of another version is told as such.
  template <typename Body>
  [[nodiscard]] Body parse(const std::string& body) {
    Result<Body> parsed = api::from_json<Body>(body);
    if (!parsed) throw_unknown(parsed.error());
    return *std::move(parsed);
  }

  /// A path that only a newer manager has: says so when there is none.
  [[nodiscard]] std::string get_newer(const std::string& path);

  /// The node of this name, else of this id. A lost registration only when there is no other.
  /// @throws Exception not_found, with the name that was probably meant.
  [[nodiscard]] api::NodeInfo node(const std::string& named);
  /// POST /v1/nodes/{id}/`order`.
  api::NodeInfo order(const api::NodeInfo& node, const std::string& order);

  /// @throws Exception not_found unless `named` is deployed, with the function that was probably meant.
  void throw_unless_deployed(const std::string& named);

  /// The manager's clock, for ages; an older manager's is taken to be this machine's.
  [[nodiscard]] std::uint64_t time_ms();
  [[nodiscard]] const std::string& url() const noexcept { return url_; }

 private:
  [[nodiscard]] std::string ask(std::string_view method, const std::string& path, std::string body,
                                Timeout timeout, const control::Pairs& headers = {});
  [[noreturn]] void throw_unknown(const Error& error) const;
  [[noreturn]] void throw_older(const std::string& path) const;

  std::string url_;
  Timeout timeout_;
  std::unique_ptr<control::HttpClient> http_;
};

}  // namespace sublet::cli
