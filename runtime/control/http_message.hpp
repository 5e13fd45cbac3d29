#pragma once

// Private to this layer's .cpp files: it names Boost.

#include <boost/beast/core/string.hpp>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/field.hpp>
#include <limits>
#include <string>

#include "runtime/base/limits.hpp"
#include "runtime/control/http_pairs.hpp"

namespace sublet::control {

/// One HTTP/1 message as it arrives: Beast's grammar over storage of ours, stricter than Beast where two
/// readers of one stream could disagree on where a message ends.
template <bool is_request>
class HttpMessage final : public boost::beast::http::basic_parser<is_request> {
 public:
  using Field = boost::beast::http::field;
  using ErrorCode = boost::beast::error_code;
  using View = boost::beast::string_view;

  explicit HttpMessage(std::size_t header_bytes_max) : header_bytes_left_(header_bytes_max) {
    this->header_limit(static_cast<std::uint32_t>(header_bytes_max));
    this->body_limit(boost::none);  // Until whoever reads the header knows better; no body is read before.
  }

  std::string method;   ///< Requests only.
  std::string target;   ///< Requests only.
  unsigned status = 0;  ///< Answers only.
  int version = 0;      ///< 10 or 11.
  Pairs headers;        ///< Names in lower case.
  std::string body;

 private:
  void on_request_impl(boost::beast::http::verb, View method_text, View target_text, int version_number,
                       ErrorCode& error) override {
    version = version_number;
    method.assign(method_text.data(), method_text.size());
    target.assign(target_text.data(), target_text.size());
    spend(method.size() + target.size(), error);
  }
  void on_response_impl(int code, View reason, int version_number, ErrorCode& error) override {
    version = version_number;
    status = static_cast<unsigned>(code);
    spend(reason.size(), error);
  }
  void on_field_impl(Field field, View name, View value, ErrorCode& error) override {
    if (header_done_) return;  // A trailer: nobody here asks for one.
    // Beast bounds what it searches at a time, not the sum of what comes in pieces.
    if (!spend(name.size() + value.size() + 4, error)) return;
    if (field == Field::transfer_encoding && (version < 11 || !boost::beast::iequals(value, "chunked"))) {
      error = boost::beast::http::error::bad_transfer_encoding;
      return;
    }
    if (field == Field::content_length && !is_number(value)) {
      error = boost::beast::http::error::bad_content_length;
      return;
    }
    std::string lower(name);
    for (char& letter : lower) {
      if (letter >= 'A' && letter <= 'Z') letter = static_cast<char>(letter - 'A' + 'a');
    }
    if ((field == Field::host || field == Field::content_length) && headers.contains(lower)) {
      error = boost::beast::http::error::bad_field;
      return;
    }
    headers.set(lower, {value.data(), value.size()});
    if (headers.size() > limits::http_pairs_max) error = boost::beast::http::error::header_limit;
  }
  void on_header_impl(ErrorCode&) override { header_done_ = true; }
  void on_body_init_impl(const boost::optional<std::uint64_t>& length, ErrorCode&) override {
    // What promises much has been admitted by then; until it is written to it costs address space alone.
    if (length && *length < std::numeric_limits<std::uint32_t>::max()) body.reserve(*length);
  }
  std::size_t on_body_impl(View bytes, ErrorCode&) override {
    body.append(bytes.data(), bytes.size());
    return bytes.size();
  }
  void on_chunk_header_impl(std::uint64_t, View, ErrorCode&) override {}
  std::size_t on_chunk_body_impl(std::uint64_t, View bytes, ErrorCode&) override {
    body.append(bytes.data(), bytes.size());
    return bytes.size();
  }
  void on_finish_impl(ErrorCode&) override {}

  static bool is_number(View text) noexcept {
    for (const char c : text) {
      if (c < '0' || c > '9') return false;
    }
    return !text.empty();
  }
  bool spend(std::size_t bytes, ErrorCode& error) noexcept {
    if (bytes > header_bytes_left_) {
      error = boost::beast::http::error::header_limit;
      return false;
    }
    header_bytes_left_ -= bytes;
    return true;
  }

  std::size_t header_bytes_left_;
  bool header_done_ = false;
};

}  // namespace sublet::control
