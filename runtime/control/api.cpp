#include "runtime/control/api.hpp"

#include <boost/json.hpp>
#include <concepts>
#include <limits>
#include <type_traits>

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
json::value write(const T& value);

/// Fields visitor: struct to object.
struct Writer {
  json::object object;

  template <typename T>
  void operator()(const char* name, T& value, Presence = Presence::required) {
    object.emplace(name, write(value));
  }
};

template <typename T>
json::value write(const T& value) {
  if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, std::string>) {
    return json::value(value);
  } else if constexpr (std::unsigned_integral<T>) {
    return json::value(static_cast<std::uint64_t>(value));
  } else if constexpr (is_vector<T>) {
    json::array array;
    array.reserve(value.size());
    for (const auto& element : value) array.push_back(write(element));
    return array;
  } else if constexpr (std::is_same_v<T, std::map<std::string, std::string>>) {
    json::object object;
    for (const auto& [key, text] : value) object.emplace(key, text);
    return object;
  } else {
    Writer writer;
    fields(writer, const_cast<T&>(value));  // One description serves both directions; Writer only reads.
    return std::move(writer.object);
  }
}

/// A wrong member, named by its path; caught in from_json.
struct Wrong {
  std::string path;
  std::string what;
};

template <typename T>
void read(const json::value& from, T& into, const std::string& path);

std::string child(const std::string& path, std::string_view name) {
  return path.empty() ? std::string(name) : path + "." + std::string(name);
}

/// Text of a peer in an error message: short, and no control bytes.
std::string quoted(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, 40)) out += c >= ' ' && c <= '~' && c != '"' ? c : '?';
  return out + (text.size() > 40 ? "..." : "");
}

/// Fields visitor: object to struct. What it has not met is unknown.
struct Reader {
  const json::object& object;
  const std::string& path;
  std::vector<std::string_view> known;

  template <typename T>
  void operator()(const char* name, T& value, Presence presence = Presence::required) {
    known.emplace_back(name);
    if (const json::value* member = object.if_contains(name)) {
      read(*member, value, child(path, name));
    } else if (presence == Presence::required) {
      throw Wrong{child(path, name), "is missing"};
    }
  }

  void refuse_unknown() const {
    for (const auto& member : object) {
      bool found = false;
      for (const std::string_view name : known) found = found || name == std::string_view(member.key());
      if (!found) throw Wrong{child(path, quoted(member.key())), "is unknown"};
    }
  }
};

template <std::unsigned_integral T>
void read_number(const json::value& from, T& into, const std::string& path) {
  std::uint64_t number = 0;
  if (from.is_uint64()) {
    number = from.get_uint64();
  } else if (from.is_int64() && from.get_int64() >= 0) {
    number = static_cast<std::uint64_t>(from.get_int64());
  } else {
    throw Wrong{path, "must be a whole number that is not negative"};
  }
  if (number > std::numeric_limits<T>::max()) {
    throw Wrong{path, "must be at most " + std::to_string(std::numeric_limits<T>::max())};
  }
  into = static_cast<T>(number);
}

void read_text(const json::value& from, std::string& into, const std::string& path) {
  const json::string* text = from.if_string();
  if (text == nullptr) throw Wrong{path, "must be a string"};
  into.assign(text->data(), text->size());
}

template <typename T>
void read(const json::value& from, T& into, const std::string& path) {
  if constexpr (std::is_same_v<T, bool>) {
    if (!from.is_bool()) throw Wrong{path, "must be true or false"};
    into = from.get_bool();
  } else if constexpr (std::unsigned_integral<T>) {
    read_number(from, into, path);
  } else if constexpr (std::is_same_v<T, std::string>) {
    read_text(from, into, path);
  } else if constexpr (is_vector<T>) {
    if (!from.is_array()) throw Wrong{path, "must be an array"};
    into.clear();
    into.reserve(from.get_array().size());
    for (const json::value& element : from.get_array()) {
      const std::string here = path + "[" + std::to_string(into.size()) + "]";
      read(element, into.emplace_back(), here);
    }
  } else if constexpr (std::is_same_v<T, std::map<std::string, std::string>>) {
    if (!from.is_object()) throw Wrong{path, "must be an object of strings"};
    into.clear();
    for (const auto& member : from.get_object()) {
      read_text(member.value(), into[std::string(member.key())], child(path, quoted(member.key())));
    }
  } else {
    if (!from.is_object()) throw Wrong{path.empty() ? "the body" : path, "must be an object"};
    Reader reader{from.get_object(), path, {}};
    fields(reader, into);
    reader.refuse_unknown();
  }
}

}  // namespace

template <typename T>
std::string to_json(const T& body) {
  return json::serialize(write(body));
}

template <typename T>
Result<T> from_json(std::string_view text) {
  json::parse_options options;
  options.max_depth = depth_max;
  boost::system::error_code wrong;
  const json::value document = json::parse(json::string_view(text.data(), text.size()), wrong, {}, options);
  if (wrong) {
    return Error(Errc::invalid_argument, "the body is not JSON that is taken here: " + wrong.message());
  }
  T body;
  try {
    read(document, body, "");
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
