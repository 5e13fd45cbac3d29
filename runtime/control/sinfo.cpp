#include "runtime/control/sinfo.hpp"

#include <algorithm>
#include <boost/json.hpp>
#include <limits>
#include <optional>

namespace sublet::control {
namespace {

namespace json = boost::json;

constexpr std::size_t depth_max = 16;
constexpr std::size_t states_max = 32;  ///< Of one node.
constexpr std::size_t text_max = 120;   ///< Of a reason, a name or a state.

/// What a person may read in a line of a log.
std::string printable(std::string_view text) {
  std::string out(text.substr(0, text_max));
  std::replace_if(
      out.begin(), out.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return out;
}

std::optional<std::uint32_t> number_of(const json::value* value) {
  if (value == nullptr) return std::nullopt;
  if (const json::object* wrapped = value->if_object()) {
    value = wrapped->if_contains("number");
    if (value == nullptr) return std::nullopt;
  }
  if (!value->is_int64() && !value->is_uint64()) return std::nullopt;
  boost::system::error_code wrong;
  const auto number = value->to_number<std::uint32_t>(wrong);
  return wrong ? std::nullopt : std::optional(number);
}

/// Adds one state or a list of them; false when it is neither, or too much.
bool add_states(const json::value* value, std::set<std::string>& states) {
  if (value == nullptr) return false;
  if (const json::string* text = value->if_string()) {
    std::string state = printable({text->data(), text->size()});
    std::transform(state.begin(), state.end(), state.begin(),
                   [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; });
    states.insert(std::move(state));
    return states.size() <= states_max;
  }
  const json::array* list = value->if_array();
  return list != nullptr && std::all_of(list->begin(), list->end(), [&](const json::value& each) {
           return each.is_string() && add_states(&each, states);
         });
}

Result<SinfoNode> node_of(const json::value& value, std::size_t index) {
  const auto wrong = [&](const char* what) {
    return Error(Errc::invalid_argument, "nodes[" + std::to_string(index) + "]" + what);
  };
  const json::object* object = value.if_object();
  if (object == nullptr) return wrong(" is no object");
  SinfoNode node;
  const json::value* name = object->if_contains("name");
  if (name == nullptr || !name->is_string() || name->get_string().empty() ||
      name->get_string().size() > text_max) {
    return wrong(".name is no node's name");
  }
  node.name = printable({name->get_string().data(), name->get_string().size()});
  if (!add_states(object->if_contains("state"), node.states)) return wrong(".state is no state");
  if (const json::value* flags = object->if_contains("state_flags");
      flags != nullptr && !add_states(flags, node.states)) {
    return wrong(".state_flags is no list of states");
  }
  const std::optional<std::uint32_t> cpus = number_of(object->if_contains("cpus"));
  const std::optional<std::uint32_t> allocated = number_of(object->if_contains("alloc_cpus"));
  if (!cpus || !allocated) return wrong(".cpus and .alloc_cpus must be whole numbers");
  node.cpus = *cpus;
  node.cpus_allocated = *allocated;
  if (const json::value* reason = object->if_contains("reason"); reason != nullptr && reason->is_string())
    node.reason = printable({reason->get_string().data(), reason->get_string().size()});
  return node;
}

}  // namespace

Result<std::vector<SinfoNode>> parse_sinfo(std::string_view text, std::size_t nodes_max) {
  json::parse_options options;
  options.max_depth = depth_max;
  boost::system::error_code wrong;
  const json::value document =
      json::parse(json::string_view(text.data(), text.size()), wrong, json::storage_ptr(), options);
  if (wrong) return Error(Errc::invalid_argument, "it is not JSON that is taken here: " + wrong.message());
  const json::object* object = document.if_object();
  const json::value* list = object != nullptr ? object->if_contains("nodes") : nullptr;
  if (list == nullptr || !list->is_array()) return Error(Errc::invalid_argument, "it has no list of nodes");
  if (list->get_array().size() > nodes_max) {
    return Error(Errc::invalid_argument, "it has more than " + std::to_string(nodes_max) + " nodes");
  }
  std::vector<SinfoNode> nodes;
  nodes.reserve(list->get_array().size());
  for (const json::value& each : list->get_array()) {
    Result<SinfoNode> node = node_of(each, nodes.size());
    if (!node) return node.error();
    nodes.push_back(*std::move(node));
  }
  return nodes;
}

}  // namespace sublet::control
