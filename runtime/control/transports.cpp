#include "runtime/control/transports.hpp"

#include <algorithm>

#include "runtime/base/limits.hpp"

namespace sublet::api {
namespace {

constexpr std::size_t wishes_max = 8;

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool is_name(const std::string& text) {
  return !text.empty() && text.size() <= limits::name_bytes_max &&
         text.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:@_-") ==
             std::string::npos;
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : " or ") + name;
  return text;
}

}  // namespace

Status check(const Transports& wishes) {
  const auto wrong = [](const std::string& text) {
    return Error(Errc::invalid_argument, "transports." + text);
  };
  for (const auto& [kind, names] :
       {std::pair("require", &wishes.require), std::pair("prefer", &wishes.prefer),
        std::pair("forbid", &wishes.forbid)}) {
    if (names->size() > wishes_max || !std::all_of(names->begin(), names->end(), is_name)) {
      return wrong(std::string(kind) + " must be at most " + std::to_string(wishes_max) +
                   " names of 1 to 64 letters, digits or .:@_-");
    }
  }
  for (const std::string& name : wishes.forbid) {
    if (contains(wishes.require, name)) return wrong("forbid names " + name + ", which require names too");
    if (contains(wishes.prefer, name)) return wrong("forbid names " + name + ", which prefer names too");
  }
  for (const std::string& name : wishes.prefer) {
    if (!wishes.require.empty() && !contains(wishes.require, name))
      return wrong("prefer names " + name + ", which require does not allow");
  }
  return {};
}

bool allows(const Transports& wishes, const std::string& transport) {
  return !contains(wishes.forbid, transport) &&
         (wishes.require.empty() || contains(wishes.require, transport));
}

std::string in_words(const Transports& wishes) {
  if (!wishes.require.empty()) return joined(wishes.require);
  return wishes.forbid.empty() ? "" : "anything but " + joined(wishes.forbid);
}

}  // namespace sublet::api
