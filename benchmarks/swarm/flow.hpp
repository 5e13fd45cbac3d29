#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "benchmarks/swarm/loop.hpp"

namespace sublet::bench {

/// The manager's address.
struct Target {
  std::string host;  ///< Numeric IPv4.
  std::uint16_t port = 0;

  /// Throws std::invalid_argument unless `url` is "http://1.2.3.4:5".
  [[nodiscard]] static Target parse(const std::string& url);
};

/// One kept HTTP/1.1 connection with at most one request under way. Requests are sent as given; of an
/// answer no more is read than the status and the body, which must have a Content-Length. Connects when
/// first used and again after it was lost. Thread safety: the loop's thread.
class Flow : public Watcher {
 public:
  class Owner {
   public:
    Owner() = default;
    Owner(const Owner&) = delete;
    Owner& operator=(const Owner&) = delete;
    virtual ~Owner() = default;

    /// @param body Valid during the call.
    virtual void on_reply(Flow& flow, unsigned status, std::string_view body) = 0;
    /// The connection ended or could not be made before the answer came.
    virtual void on_lost(Flow& flow) = 0;
  };

  /// All three must outlive this.
  /// @param peer With a target on loopback: connects from an address of this one's own, as a machine does.
  ///             Thousands of connections from one address spend their time on the search for a free port.
  Flow(Loop& loop, const Target& target, Owner& owner, std::uint32_t peer = 0)
      : loop_(loop), target_(target), owner_(owner), peer_(peer) {}

  /// on_reply or on_lost follows, never within this call. None may be under way.
  void send(std::string_view request);
  [[nodiscard]] bool busy() const noexcept { return busy_; }
  /// When the request under way was sent.
  [[nodiscard]] TimePoint sent_at() const noexcept { return sent_at_; }
  /// Ends the connection; a request under way is forgotten.
  void close();

  void on_events(std::uint32_t epoll_events) override;

 private:
  [[nodiscard]] bool open();
  void take_address() const;
  void flush();
  void take(std::string_view bytes);
  void lose();
  void lose_soon();

  Loop& loop_;
  const Target& target_;
  Owner& owner_;
  std::uint32_t peer_;
  FileDescriptor socket_;
  std::string out_;      // What the socket has not taken yet.
  std::string pending_;  // Part of an answer.
  TimePoint sent_at_;
  std::uint64_t sends_ = 0;
  bool busy_ = false;
};

/// "POST /v1/leases" and a body as an HTTP request.
[[nodiscard]] std::string http_request(std::string_view method_and_path, std::string_view body = {});
/// The digits that follow the first `key` in `text` from `from` on; 0 when there are none.
[[nodiscard]] std::uint64_t number_after(std::string_view text, std::string_view key, std::size_t from = 0);

}  // namespace sublet::bench
