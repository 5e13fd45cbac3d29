#include "runtime/control/http_connection.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <cerrno>
#include <optional>

namespace sublet::control {

namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;

namespace {

constexpr std::chrono::milliseconds linger_max{2000};  // For a refused peer to read why.
constexpr std::size_t read_bytes = 16 * 1024;

class Connection;

}  // namespace

struct Responder::State {
  std::shared_ptr<Connection> connection;  // Until the answer.
  std::function<void()> gone;

  ~State();
  void send(HttpReply reply);
};

namespace {

/// One peer: reads a request, hands it to its route, writes the answer, and again. Each step's handler
/// holds the connection; when none is left it closes.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(std::shared_ptr<Site> site, boost::asio::ip::tcp::socket socket)
      : site_(std::move(site)),
        stream_(std::move(socket)),
        buffer_(site_->bounds.header_bytes_max + read_bytes) {
    ++site_->connections;
  }
  ~Connection() {
    give_back_body();
    --site_->connections;
  }

  void wait_for_request();
  void answer(HttpReply reply);

 private:
  using Response = http::response<http::span_body<const char>>;

  void read_header();
  void on_header();
  void read_body();
  void dispatch();
  void refuse(const Error& error, std::optional<unsigned> status = {},
              std::map<std::string, std::string> headers = {});
  void watch_peer(const std::weak_ptr<Responder::State>& waiting);
  void write(HttpReply reply);
  void linger();
  void linger_read();
  bool admit_body();
  void give_back_body() noexcept {
    site_->bodies_bytes -= body_bytes_;
    body_bytes_ = 0;
  }

  std::shared_ptr<Site> site_;
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
  std::optional<http::request_parser<http::string_body>> parser_;
  std::optional<Response> response_;
  std::shared_ptr<const std::string> response_body_;
  Match match_;
  std::string method_;
  std::string path_;
  std::string query_;
  std::size_t body_bytes_ = 0;
  bool keep_alive_ = false;
  bool watching_ = false;
};

void Connection::wait_for_request() {
  parser_.emplace();
  parser_->header_limit(static_cast<std::uint32_t>(site_->bounds.header_bytes_max));
  parser_->body_limit(boost::none);  // Until the route is known; no body is read before.
  match_ = {};
  method_.clear();
  keep_alive_ = false;
  if (buffer_.size() > 0) return read_header();  // Pipelined.
  stream_.expires_after(site_->bounds.idle_max);
  stream_.async_read_some(buffer_.prepare(read_bytes),
                          [self = shared_from_this()](error_code error, std::size_t count) {
                            if (error) return;
                            self->buffer_.commit(count);
                            self->read_header();
                          });
}

void Connection::read_header() {
  stream_.expires_after(site_->bounds.request_max);
  http::async_read_header(
      stream_, buffer_, *parser_, [self = shared_from_this()](error_code error, std::size_t) {
        if (!error) return self->on_header();
        if (error == http::error::header_limit || error == http::error::buffer_overflow) {
          return self->refuse(
              Error(Errc::too_large, "the request's header exceeds the limit of " +
                                         std::to_string(self->site_->bounds.header_bytes_max) + " bytes"),
              431);
        }
        if (error == beast::error::timeout || error == http::error::end_of_stream ||
            error == http::error::partial_message || error.category() == boost::system::system_category()) {
          return;  // Gone, silent or half a request: nobody to answer.
        }
        self->refuse(Error(Errc::invalid_argument, "not an HTTP/1.1 request: " + error.message()));
      });
}

void Connection::on_header() {
  const auto& request = parser_->get();
  method_ = std::string(request.method_string());
  std::string_view target(request.target().data(), request.target().size());
  const std::size_t mark = target.find('?');
  path_ = std::string(target.substr(0, mark));
  query_ = mark == std::string_view::npos ? "" : std::string(target.substr(mark + 1));
  match_ = match(site_->routes, method_, path_);
  if (match_.route == nullptr && !match_.allowed.empty()) {
    return refuse(Error(Errc::invalid_argument, "this path takes " + match_.allowed + " only"), 405,
                  {{"Allow", match_.allowed}});
  }
  if (match_.route == nullptr) {
    return refuse(Error(Errc::not_found, "there is no such path; docs/api.yaml lists them"));
  }
  if (!admit_body()) return;
  if (beast::iequals(request[http::field::expect], "100-continue")) {
    auto go_on = std::make_shared<http::response<http::empty_body>>(http::status::continue_, 11);
    return http::async_write(stream_, *go_on,
                             [self = shared_from_this(), go_on](error_code error, std::size_t) {
                               if (!error) self->read_body();
                             });
  }
  read_body();
}

/// Refuses a body by what the header promises, before a byte of it is read.
bool Connection::admit_body() {
  const std::size_t most = match_.route->body_bytes_max;
  const auto length = parser_->content_length();
  if (length && *length > most) {
    refuse(Error(Errc::too_large, "the body of " + std::to_string(*length) + " bytes exceeds the limit of " +
                                      std::to_string(most)));
    return false;
  }
  if (!length && parser_->chunked() && most > limits::json_body_bytes_max) {
    refuse(Error(Errc::invalid_argument, "send a Content-Length: a body this large is not taken in chunks"),
           411);
    return false;
  }
  const std::size_t promised = length ? static_cast<std::size_t>(*length) : parser_->chunked() ? most : 0;
  if (promised > site_->bounds.bodies_bytes_max - site_->bodies_bytes) {
    refuse(Error(Errc::unavailable, "too many large requests are under way; try again later"));
    return false;
  }
  body_bytes_ = promised;
  site_->bodies_bytes += promised;
  parser_->body_limit(most);
  return true;
}

void Connection::read_body() {
  http::async_read(stream_, buffer_, *parser_, [self = shared_from_this()](error_code error, std::size_t) {
    if (!error) return self->dispatch();
    if (error == http::error::body_limit) {
      return self->refuse(Error(
          Errc::too_large,
          "the body exceeds the limit of " + std::to_string(self->match_.route->body_bytes_max) + " bytes"));
    }
    if (error == http::error::bad_chunk || error == http::error::bad_chunk_extension) {
      self->refuse(Error(Errc::invalid_argument, "the chunks of the body are malformed"));
    }
  });
}

std::map<std::string, std::string> lower_case_headers(const http::fields& fields) {
  std::map<std::string, std::string> out;
  for (const auto& field : fields) {
    std::string name(field.name_string());
    std::transform(name.begin(), name.end(), name.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
    out[name] = std::string(field.value());
  }
  return out;
}

void Connection::dispatch() {
  keep_alive_ = parser_->get().keep_alive();
  HttpRequest request{method_,
                      path_,
                      std::move(match_.parameters),
                      parse_query(query_),
                      lower_case_headers(parser_->get()),
                      std::move(parser_->get().body())};
  stream_.expires_never();  // The handler's time is the handler's to bound.
  auto state = std::make_shared<Responder::State>();
  state->connection = shared_from_this();
  const std::weak_ptr<Responder::State> waiting = state;
  const Responder responder(std::move(state));
  try {
    match_.route->handler(request, responder);
  } catch (const std::exception& failure) {
    responder.send(Error(Errc::internal, std::string("the request failed: ") + failure.what()));
  }
  watch_peer(waiting);
}

/// While an answer is awaited, notices a peer that goes away. A peer that sends its next request already
/// is not watched any further: its bytes stay in the socket until their turn.
void Connection::watch_peer(const std::weak_ptr<Responder::State>& waiting) {
  const auto now_waiting = waiting.lock();
  if (!now_waiting || !now_waiting->connection) return;
  watching_ = true;
  stream_.socket().async_wait(boost::asio::socket_base::wait_read, [self = shared_from_this(),
                                                                    waiting](error_code error) {
    const auto state = waiting.lock();
    if (error || !state || !state->connection) return;
    self->watching_ = false;
    char byte = 0;
    const ssize_t count = ::recv(self->stream_.socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (count > 0 || (count < 0 && (errno == EAGAIN || errno == EINTR))) return;
    state->connection.reset();
    if (auto gone = std::exchange(state->gone, nullptr)) gone();
  });
}

void Connection::answer(HttpReply reply) {
  if (watching_) {
    watching_ = false;
    error_code ignored;
    stream_.socket().cancel(ignored);
  }
  give_back_body();
  write(std::move(reply));
}

/// Answers and closes: what follows in the stream cannot be trusted or is not wanted.
void Connection::refuse(const Error& error, std::optional<unsigned> status,
                        std::map<std::string, std::string> headers) {
  keep_alive_ = false;
  HttpReply reply = reply_of(error);
  reply.status = status.value_or(reply.status);
  reply.headers = std::move(headers);
  write(std::move(reply));
}

void Connection::write(HttpReply reply) {
  if (site_->observer) {
    site_->observer(method_, match_.route != nullptr ? match_.route->pattern : "", reply.status);
  }
  response_body_ = reply.shared_body ? std::move(reply.shared_body)
                                     : std::make_shared<const std::string>(std::move(reply.body));
  response_.emplace(static_cast<http::status>(reply.status), 11);
  for (const auto& [name, value] : reply.headers) response_->set(name, value);
  if (reply.status != 204) {
    response_->set(http::field::content_type, reply.content_type);
    response_->body() = {response_body_->data(), response_body_->size()};
    response_->prepare_payload();
  }
  keep_alive_ = keep_alive_ && !site_->closing;
  response_->keep_alive(keep_alive_);
  stream_.expires_after(site_->bounds.request_max);
  http::async_write(stream_, *response_, [self = shared_from_this()](error_code error, std::size_t) {
    self->response_.reset();
    self->response_body_.reset();
    if (error) return;
    if (self->keep_alive_) return self->wait_for_request();
    self->linger();
  });
}

/// Closing with bytes unread would reset the connection and could take the answer with it.
void Connection::linger() {
  error_code error;
  stream_.socket().shutdown(boost::asio::socket_base::shutdown_send, error);
  if (error) return;
  stream_.expires_after(linger_max);
  linger_read();
}

void Connection::linger_read() {
  buffer_.clear();
  stream_.async_read_some(buffer_.prepare(read_bytes),
                          [self = shared_from_this()](error_code error, std::size_t) {
                            if (!error) self->linger_read();
                          });
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

void serve(std::shared_ptr<Site> site, boost::asio::ip::tcp::socket socket) {
  std::make_shared<Connection>(std::move(site), std::move(socket))->wait_for_request();
}

}  // namespace sublet::control
