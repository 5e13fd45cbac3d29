#include "runtime/control/api.hpp"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <charconv>
#include <concepts>
#include <limits>
#include <type_traits>
#include <utility>

#include "runtime/base/assert.hpp"
#include "runtime/control/api_fields.hpp"

namespace sublet::api {
namespace {

namespace json = boost::json;

constexpr std::size_t depth_max = 8;

template <typename T>
constexpr bool is_vector = false;
template <typename T>
constexpr bool is_vector<std::vector<T>> = true;

template <typename T>
constexpr bool is_text_map = std::is_same_v<T, std::map<std::string, std::string>>;

void write_text(std::string& out, std::string_view text) {
  constexpr std::string_view digits = "0123456789abcdef";
  out += '"';
  while (!text.empty()) {
    const auto plain = std::find_if(text.begin(), text.end(), [](char c) {
      return static_cast<unsigned char>(c) < ' ' || c == '"' || c == '\\';
    });
    const auto count = static_cast<std::size_t>(plain - text.begin());
    out.append(text.substr(0, count));
    text.remove_prefix(count);
    if (text.empty()) break;
    const char special = text.front();
    text.remove_prefix(1);
    if (static_cast<unsigned char>(special) < ' ') {
      out.append("\\u00").append({digits[special / 16], digits[special % 16]});
    } else {
      out.append({'\\', special});
    }
  }
  out += '"';
}

void write_number(std::string& out, std::uint64_t number) {
  std::array<char, 20> text{};
  const auto [end, error] = std::to_chars(text.data(), text.data() + text.size(), number);
  SUBLET_ASSERT(error == std::errc());
  out.append(text.data(), end);
}

template <typename T>
void write(std::string& out, const T& value);

/// Fields visitor: struct to text, without a document in between.
struct Writer {
  std::string& out;
  char before = '{';

  template <typename T>
  void operator()(const char* name, T& value, Presence = Presence::required) {
    out.append({std::exchange(before, ','), '"'}).append(name).append("\":");
    write(out, value);
  }
};

template <typename T>
void write(std::string& out, const T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    out += value ? "true" : "false";
  } else if constexpr (std::is_same_v<T, std::string>) {
    write_text(out, value);
  } else if constexpr (std::unsigned_integral<T>) {
    write_number(out, value);
  } else if constexpr (is_vector<T>) {
    out += '[';
    for (const auto& element : value) {
      if (&element != value.data()) out += ',';
      write(out, element);
    }
    out += ']';
  } else if constexpr (is_text_map<T>) {
    char before = '{';
    for (const auto& [key, text] : value) {
      out += std::exchange(before, ',');
      write_text(out, key);
      out += ':';
      write_text(out, text);
    }
    out += before == '{' ? "{}" : "}";
  } else {
    Writer writer{out};
    fields(writer, const_cast<T&>(value));  // One description serves both directions; Writer only reads.
    out += '}';
  }
}

/// A wrong member, named by its path; caught in from_json.
struct Wrong {
  std::string path;
  std::string what;
};

/// Where a value lies: a chain of names up to the body, which becomes text only when something is wrong.
struct Place {
  static constexpr std::size_t no_index = std::numeric_limits<std::size_t>::max();

  const Place* parent = nullptr;
  std::string_view name;
  std::size_t index = no_index;  ///< Of an array's element, which has no name.

  [[nodiscard]] std::string text() const {
    const std::string before = parent != nullptr ? parent->text() : "";
    if (index != no_index) return before + "[" + std::to_string(index) + "]";
    return before.empty() || name.empty() ? before + std::string(name) : before + "." + std::string(name);
  }
};

template <typename T>
void read(const json::value& from, T& into, const Place& place);

/// Text of a peer in an error message: short, and no control bytes.
std::string quoted(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, 40)) out += c >= ' ' && c <= '~' && c != '"' ? c : '?';
  return out + (text.size() > 40 ? "..." : "");
}

/// Fields visitor: object to struct. What it has not met is unknown.
struct Reader {
  const json::object& object;
  const Place& place;
  std::size_t met = 0;
  std::array<const char*, 32> known{};  ///< More members than the largest body has.
  std::size_t known_count = 0;

  template <typename T>
  void operator()(const char* name, T& value, Presence presence = Presence::required) {
    known.at(known_count++) = name;
    if (const json::value* member = object.if_contains(name)) {
      ++met;
      read(*member, value, {&place, name});
    } else if (presence == Presence::required) {
      throw Wrong{Place{&place, name}.text(), "is missing"};
    }
  }

  void refuse_unknown() const {
    if (met == object.size()) return;
    for (const auto& member : object) {
      bool found = false;
      for (std::size_t i = 0; i < known_count; ++i) found = found || member.key() == known[i];
      if (!found) throw Wrong{Place{&place, quoted(member.key())}.text(), "is unknown"};
    }
  }
};

template <std::unsigned_integral T>
void read_number(const json::value& from, T& into, const Place& place) {
  std::uint64_t number = 0;
  if (from.is_uint64()) {
    number = from.get_uint64();
  } else if (from.is_int64() && from.get_int64() >= 0) {
    number = static_cast<std::uint64_t>(from.get_int64());
  } else {
    throw Wrong{place.text(), "must be a whole number that is not negative"};
  }
  if (number > std::numeric_limits<T>::max()) {
    throw Wrong{place.text(), "must be at most " + std::to_string(std::numeric_limits<T>::max())};
  }
  into = static_cast<T>(number);
}

void read_text(const json::value& from, std::string& into, const Place& place) {
  const json::string* text = from.if_string();
  if (text == nullptr) throw Wrong{place.text(), "must be a string"};
  into.assign(text->data(), text->size());
}

template <typename T>
void read(const json::value& from, T& into, const Place& place) {
  if constexpr (std::is_same_v<T, bool>) {
    if (!from.is_bool()) throw Wrong{place.text(), "must be true or false"};
    into = from.get_bool();
  } else if constexpr (std::unsigned_integral<T>) {
    read_number(from, into, place);
  } else if constexpr (std::is_same_v<T, std::string>) {
    read_text(from, into, place);
  } else if constexpr (is_vector<T>) {
    if (!from.is_array()) throw Wrong{place.text(), "must be an array"};
    into.clear();
    into.reserve(from.get_array().size());
    for (const json::value& element : from.get_array()) {
      const Place here{&place, {}, into.size()};
      read(element, into.emplace_back(), here);
    }
  } else if constexpr (is_text_map<T>) {
    if (!from.is_object()) throw Wrong{place.text(), "must be an object of strings"};
    into.clear();
    for (const auto& member : from.get_object()) {
      const std::string name = quoted(member.key());
      read_text(member.value(), into[std::string(member.key())], {&place, name});
    }
  } else {
    if (!from.is_object()) {
      throw Wrong{place.parent == nullptr ? "the body" : place.text(), "must be an object"};
    }
    Reader reader{from.get_object(), place};
    fields(reader, into);
    reader.refuse_unknown();
  }
}

}  // namespace

template <typename T>
std::string to_json(const T& body) {
  std::string out;
  write(out, body);
  return out;
}

template <typename T>
Result<T> from_json(std::string_view text) {
  json::parse_options options;
  options.max_depth = depth_max;
  boost::system::error_code wrong;
  std::array<unsigned char, 4096> first;  // NOLINT(cppcoreguidelines-pro-type-member-init): only written to.
  json::monotonic_resource memory(first.data(), first.size());  // Most bodies fit, and nothing is allocated.
  const json::value document =
      json::parse(json::string_view(text.data(), text.size()), wrong, &memory, options);
  if (wrong) {
    return Error(Errc::invalid_argument, "the body is not JSON that is taken here: " + wrong.message());
  }
  T body;
  try {
    read(document, body, Place{});
  } catch (const Wrong& member) {
    return Error(Errc::invalid_argument, member.path + " " + member.what);
  }
  return body;
}

#define SUBLET_API_BODY(Type)                      \
  template std::string to_json<Type>(const Type&); \
  template Result<Type> from_json<Type>(std::string_view)
SUBLET_API_BODY(WorkerInfo);
SUBLET_API_BODY(NodeRegistration);
SUBLET_API_BODY(NodeRegistered);
SUBLET_API_BODY(Heartbeat);
SUBLET_API_BODY(HeartbeatAnswer);
SUBLET_API_BODY(Command);
SUBLET_API_BODY(Commands);
SUBLET_API_BODY(FunctionInfo);
SUBLET_API_BODY(Functions);
SUBLET_API_BODY(LeaseRequest);
SUBLET_API_BODY(GrantedWorker);
SUBLET_API_BODY(LeaseGrant);
SUBLET_API_BODY(RenewRequest);
SUBLET_API_BODY(ReplaceRequest);
SUBLET_API_BODY(LeaseInfo);
SUBLET_API_BODY(Leases);
SUBLET_API_BODY(NodeInfo);
SUBLET_API_BODY(Nodes);
SUBLET_API_BODY(WorkerUsage);
SUBLET_API_BODY(Usage);
SUBLET_API_BODY(Tenants);
SUBLET_API_BODY(Health);
SUBLET_API_BODY(ErrorBody);
#undef SUBLET_API_BODY

}  // namespace sublet::api
