#include "runtime/control/http_connection.hpp"

#include <array>
#include <boost/asio/error.hpp>
#include <boost/beast/http/status.hpp>
#include <optional>

#include "runtime/control/http_inbox.hpp"
#include "runtime/control/http_message.hpp"

namespace sublet::control {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

namespace {

// Room for a line of a chunk or a body's next piece beside the largest header.
constexpr std::size_t inbox_spare_bytes = 1024;
constexpr std::size_t joined_bytes_max = 16 * 1024;  // A body up to this is sent in one piece with its head.

class Connection;

}  // namespace

struct Responder::State {
  std::shared_ptr<Connection> connection;  // Until the answer.
  std::function<void()> gone;

  ~State();
  void send(HttpReply reply);
};

namespace {

/// A request while it is read.
struct Incoming {
  explicit Incoming(std::size_t header_bytes_max) : message(header_bytes_max) {}

  HttpMessage<true> message;
  HttpRequest request;
};

/// One peer: reads a request, hands it to its route, writes the answer, and again. A read or write under
/// way holds the connection, or the Responder does; when none does it closes.
class Connection final : public std::enable_shared_from_this<Connection>, public Bounded {
 public:
  Connection(std::shared_ptr<Site> site, asio::ip::tcp::socket socket)
      : site_(std::move(site)),
        socket_(std::move(socket)),
        inbox_(site_->bounds.header_bytes_max + inbox_spare_bytes) {
    ++site_->connections;
  }
  ~Connection() override {
    give_back_body();
    leave();
  }

  void start();
  void answer(HttpReply reply);
  void expire() noexcept override {
    error_code ignored;
    socket_.close(ignored);
    leave();
  }

 private:
  enum class Phase { idle, reading, handling, writing, lingering };

  void leave() noexcept {
    if (std::exchange(counted_, false)) --site_->connections;
  }
  void read();
  void on_read(error_code error, std::size_t count);
  void on_end(error_code error);
  void proceed();
  bool parse();
  void begin_request();
  bool on_header();
  bool refuse_parsed(error_code error);
  bool admit_body();
  void dispatch();
  void refuse(const Error& error, std::optional<unsigned> status = {}, const Pairs& headers = {});
  void write(HttpReply reply);
  void send_some(const std::string& head, error_code& error);
  [[nodiscard]] bool all_sent(const std::string& head) const noexcept;
  void send_when_ready();
  void send_rest();
  void written();
  void linger();
  void give_back_body() noexcept {
    site_->bodies_bytes -= body_bytes_;
    body_bytes_ = 0;
  }

  std::shared_ptr<Site> site_;
  asio::ip::tcp::socket socket_;
  Phase phase_ = Phase::idle;
  bool counted_ = true;
  bool reading_ = false;     ///< A read is under way.
  bool peer_done_ = false;   ///< The peer sends no more.
  bool proceeding_ = false;  ///< proceed() is on the stack and goes on by itself.
  bool keep_alive_ = false;
  bool head_only_ = false;
  const Route* route_ = nullptr;
  std::unique_ptr<Incoming> incoming_;
  std::weak_ptr<Responder::State> waiting_;
  std::size_t body_bytes_ = 0;      ///< Of the site's bodies_bytes.
  std::size_t progress_bytes_ = 0;  ///< Since the time of the request or answer began.
  std::string out_;                 ///< What did not leave at once.
  std::shared_ptr<const std::string> out_shared_;
  std::size_t out_sent_ = 0;
  HttpInbox inbox_;
};

void Connection::start() {
  error_code ignored;
  socket_.non_blocking(true, ignored);
  site_->idle.restart(*this, SteadyClock::now());
  read();
}

void Connection::read() {
  if (reading_ || peer_done_) return;
  // A peer that sent more than it waits for is not watched: the rest stays in its socket until its turn.
  // And while a read is under way the inbox is empty, so that nothing moves beneath it.
  const bool answering = phase_ == Phase::handling || phase_ == Phase::writing;
  if (answering && !inbox_.empty()) return;
  const bool much =
      phase_ == Phase::lingering || (phase_ == Phase::reading && incoming_->message.is_header_done());
  if (inbox_.empty() && !much) inbox_.shrink();
  const std::span<char> room = inbox_.room(much);
  reading_ = true;
  socket_.async_read_some(
      asio::buffer(room.data(), room.size()),
      [self = shared_from_this()](error_code error, std::size_t count) { self->on_read(error, count); });
}

void Connection::on_read(error_code error, std::size_t count) {
  reading_ = false;
  if (error) return on_end(error);
  if (phase_ == Phase::lingering) return read();  // Into the same room again: nobody takes it.
  inbox_.commit(count);
  if (phase_ == Phase::idle || phase_ == Phase::reading) proceed();
}

/// The peer sends no more. What it still waits for is written, unless its going was to be noticed.
void Connection::on_end(error_code error) {
  peer_done_ = true;
  if (phase_ != Phase::handling) return;
  const auto state = waiting_.lock();
  if (!state || !state->connection) return;
  const auto gone = std::exchange(state->gone, nullptr);
  if (error != asio::error::eof) state->connection.reset();
  if (!gone) return;
  gone();
  state->send(reply_of(Error(
      Errc::closed,
      "a peer that closes its side while it waits is taken to be gone: keep it open until the answer")));
}

/// Takes requests from the inbox until it is empty or one is not answered at once.
void Connection::proceed() {
  if (proceeding_) return;
  proceeding_ = true;
  while ((phase_ == Phase::idle || phase_ == Phase::reading) && !inbox_.empty()) {
    if (phase_ == Phase::idle) begin_request();
    if (!parse()) break;
  }
  proceeding_ = false;
  if (phase_ == Phase::idle) site_->idle.restart(*this, SteadyClock::now());
  read();
}

void Connection::begin_request() {
  phase_ = Phase::reading;
  site_->busy.restart(*this, SteadyClock::now());
  progress_bytes_ = 0;
  incoming_ = std::make_unique<Incoming>(site_->bounds.header_bytes_max);
  route_ = nullptr;
  head_only_ = false;
  keep_alive_ = false;
}

/// Feeds the request what has come. False when more must come first.
bool Connection::parse() {
  HttpMessage<true>& message = incoming_->message;
  const bool in_header = !message.is_header_done();
  message.eager(!in_header);  // It stops behind the header, for the route to set the limit of the body.
  const std::string_view bytes = inbox_.bytes();
  error_code error;
  const std::size_t taken = message.put(asio::const_buffer(bytes.data(), bytes.size()), error);
  inbox_.consume(taken);
  if (error == http::error::need_more) {
    if (!inbox_.full()) return false;
    error = in_header ? http::error::header_limit : http::error::bad_chunk;
  }
  if (error) return refuse_parsed(error);
  if (in_header && message.is_header_done() && !on_header()) return true;
  if (message.is_done()) {
    dispatch();
  } else if ((progress_bytes_ += taken) >= limits::http_step_bytes) {
    progress_bytes_ = 0;
    site_->busy.restart(*this, SteadyClock::now());
  }
  return true;
}

bool Connection::refuse_parsed(error_code error) {
  if (error == http::error::header_limit) {
    refuse(Error(Errc::too_large, "the request's header exceeds the limit of " +
                                      std::to_string(site_->bounds.header_bytes_max) + " bytes or " +
                                      std::to_string(limits::http_pairs_max) + " lines"),
           431);
  } else if (error == http::error::body_limit) {
    refuse(Error(Errc::too_large,
                 "the body exceeds the limit of " + std::to_string(route_->body_bytes_max) + " bytes"));
  } else if (error == http::error::bad_chunk || error == http::error::bad_chunk_extension) {
    refuse(Error(Errc::invalid_argument, "the chunks of the body are malformed"));
  } else {
    refuse(Error(Errc::invalid_argument, "not an HTTP/1.1 request: " + error.message()));
  }
  return true;
}

/// Finds the route. False when the request is refused.
bool Connection::on_header() {
  HttpMessage<true>& message = incoming_->message;
  HttpRequest& request = incoming_->request;
  const Target target = split_target(message.target);
  request.path = target.path;
  head_only_ = message.method == "HEAD";
  RouteTable::Match found = site_->routes.match(message.method, target.path, request.parameters);
  route_ = found.route;
  if (route_ == nullptr && !found.allowed.empty()) {
    refuse(Error(Errc::invalid_argument, "this path takes " + found.allowed + " only"), 405,
           {{"Allow", found.allowed}});
    return false;
  }
  if (route_ == nullptr) {
    refuse(Error(Errc::not_found, "there is no such path; docs/api.yaml lists them"));
    return false;
  }
  Result<Pairs> query = parse_query(target.query);
  if (!query) {
    refuse(query.error());
    return false;
  }
  request.query = *std::move(query);
  if (!admit_body()) return false;
  const auto expect = message.headers.find("expect");
  if (expect == message.headers.end() || message.is_done()) return true;
  if (!boost::beast::iequals(expect->second, "100-continue")) {
    refuse(Error(Errc::invalid_argument, "of Expect only 100-continue is known"), 417);
    return false;
  }
  // All answers before this one have left: so few bytes find room.
  static constexpr std::string_view go_on = "HTTP/1.1 100 Continue\r\n\r\n";
  error_code ignored;
  socket_.send(asio::buffer(go_on), 0, ignored);
  return true;
}

/// Refuses a body by what the header promises, before a byte of it is read.
bool Connection::admit_body() {
  HttpMessage<true>& message = incoming_->message;
  const std::size_t most = route_->body_bytes_max;
  const auto length = message.content_length();
  if (length && *length > most) {
    refuse(Error(Errc::too_large, "the body of " + std::to_string(*length) + " bytes exceeds the limit of " +
                                      std::to_string(most)));
    return false;
  }
  if (!length && message.chunked() && most > limits::json_body_bytes_max) {
    refuse(Error(Errc::invalid_argument, "send a Content-Length: a body this large is not taken in chunks"),
           411);
    return false;
  }
  const std::size_t promised = length ? static_cast<std::size_t>(*length) : message.chunked() ? most : 0;
  // Uploads leave room for heartbeats.
  const std::size_t reserve = most > limits::json_body_bytes_max
                                  ? site_->bounds.bodies_bytes_max / limits::http_bodies_reserve_part
                                  : 0;
  const std::size_t taken = site_->bodies_bytes + reserve;
  if (taken > site_->bounds.bodies_bytes_max || promised > site_->bounds.bodies_bytes_max - taken) {
    refuse(Error(Errc::unavailable, "too many large requests are under way; try again later"));
    return false;
  }
  body_bytes_ = promised;
  site_->bodies_bytes += promised;
  message.body_limit(most);
  return true;
}

void Connection::dispatch() {
  phase_ = Phase::handling;
  unlink();  // The handler's time is the handler's to bound.
  const std::unique_ptr<Incoming> incoming = std::move(incoming_);
  HttpRequest& request = incoming->request;
  keep_alive_ = incoming->message.version == 11 && incoming->message.keep_alive();
  request.method = std::move(incoming->message.method);
  request.headers = std::move(incoming->message.headers);
  request.body = std::move(incoming->message.body);
  site_->bodies_bytes -= body_bytes_ - std::min(body_bytes_, request.body.size());  // What was only promised.
  body_bytes_ = std::min(body_bytes_, request.body.size());
  auto state = std::make_shared<Responder::State>();
  state->connection = shared_from_this();
  waiting_ = state;
  const Responder responder(std::move(state));
  try {
    route_->handler(request, responder);
  } catch (const std::exception& failure) {
    responder.send(Error(Errc::internal, std::string("the request failed: ") + failure.what()));
  }
}

void Connection::answer(HttpReply reply) {
  give_back_body();
  write(std::move(reply));
}

/// Answers and closes: what follows in the stream cannot be trusted or is not wanted.
void Connection::refuse(const Error& error, std::optional<unsigned> status, const Pairs& headers) {
  keep_alive_ = false;
  HttpReply reply = reply_of(error);
  reply.status = status.value_or(reply.status);
  for (const auto& [name, value] : headers) reply.headers.set(name, value);
  write(std::move(reply));
}

void Connection::write(HttpReply reply) {
  phase_ = Phase::writing;
  if (site_->observer) {
    site_->observer(route_ != nullptr ? route_->method : "", route_ != nullptr ? route_->pattern : "",
                    reply.status);
  }
  keep_alive_ = keep_alive_ && !site_->closing;
  if (!reply.shared_body && reply.body.size() > joined_bytes_max) {
    reply.shared_body = std::make_shared<const std::string>(std::move(reply.body));
  }
  std::string& head = site_->scratch;
  head.clear();
  append_head(head, reply, reply.shared_body ? reply.shared_body->size() : reply.body.size(), keep_alive_);
  if (!head_only_ && reply.status != 204) {
    if (!reply.shared_body) head += reply.body;
    out_shared_ = std::move(reply.shared_body);
  }
  out_sent_ = 0;
  error_code error;
  send_some(head, error);
  if (!error && all_sent(head)) return written();
  if (error && error != asio::error::would_block) return expire();
  out_ = head;
  progress_bytes_ = 0;
  site_->busy.restart(*this, SteadyClock::now());
  send_when_ready();
}

void Connection::send_some(const std::string& head, error_code& error) {
  std::array<asio::const_buffer, 2> pieces{asio::buffer(head), {}};
  if (out_shared_) pieces[1] = asio::buffer(*out_shared_);
  const std::size_t skip = std::min(out_sent_, head.size());
  pieces[0] += skip;
  pieces[1] += out_sent_ - skip;
  const std::size_t sent = socket_.send(pieces, 0, error);
  out_sent_ += sent;
  progress_bytes_ += sent;
}

bool Connection::all_sent(const std::string& head) const noexcept {
  return out_sent_ == head.size() + (out_shared_ ? out_shared_->size() : 0);
}

void Connection::send_when_ready() {
  socket_.async_wait(asio::socket_base::wait_write, [self = shared_from_this()](error_code error) {
    if (!error) self->send_rest();
  });
}

void Connection::send_rest() {
  error_code error;
  send_some(out_, error);
  if (error && error != asio::error::would_block) return expire();
  if (!error && all_sent(out_)) return written();
  if (progress_bytes_ >= limits::http_step_bytes) {
    progress_bytes_ = 0;
    site_->busy.restart(*this, SteadyClock::now());
  }
  send_when_ready();
}

void Connection::written() {
  std::string().swap(out_);
  out_shared_.reset();
  incoming_.reset();
  if (!keep_alive_) return linger();
  phase_ = Phase::idle;
  proceed();
}

/// Closing with bytes unread would reset the connection and could take the answer with it.
void Connection::linger() {
  phase_ = Phase::lingering;
  error_code error;
  socket_.shutdown(asio::socket_base::shutdown_send, error);
  if (error) return expire();
  site_->lingering.restart(*this, SteadyClock::now());
  inbox_.consume(inbox_.bytes().size());
  read();
}

}  // namespace

Responder::State::~State() {
  if (connection) send(reply_of(Error(Errc::internal, "the request was dropped without an answer")));
}

void Responder::State::send(HttpReply reply) {
  gone = nullptr;
  if (const auto to = std::exchange(connection, nullptr)) to->answer(std::move(reply));
}

void Responder::send(HttpReply reply) const {
  state_->send(std::move(reply));
}

void Responder::on_gone(std::function<void()> callback) const {
  if (state_->connection) state_->gone = std::move(callback);
}

void append_head(std::string& out, const HttpReply& reply, std::size_t body_bytes, bool keep_alive) {
  const auto line = [&out](std::string_view name, std::string_view value) {
    out.append(name).append(": ").append(value).append("\r\n");
  };
  out += "HTTP/1.1 ";
  out += std::to_string(reply.status);
  out += ' ';
  const auto reason = http::obsolete_reason(static_cast<http::status>(reply.status));
  out.append(reason.data(), reason.size()).append("\r\n");
  if (reply.status != 204) {
    line("Content-Type", reply.content_type);
    line("Content-Length", std::to_string(body_bytes));
  }
  for (const auto& [name, value] : reply.headers) line(name, value);
  if (!keep_alive) line("Connection", "close");
  out += "\r\n";
}

void serve(const std::shared_ptr<Site>& site, asio::ip::tcp::socket socket) {
  std::make_shared<Connection>(site, std::move(socket))->start();
}

}  // namespace sublet::control
