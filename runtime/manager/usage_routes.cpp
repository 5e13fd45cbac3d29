#include "runtime/base/limits.hpp"
#include "runtime/manager/requests.hpp"
#include "runtime/manager/service.hpp"

namespace sublet::manager {
namespace {

Result<UsageQuery> parse_query(const control::HttpRequest& request) {
  UsageQuery query{.limit = limits::usage_rows_max};
  for (const auto& [key, value] : request.query) {
    if (key == "by") {
      const std::map<std::string, UsageQuery::By> kinds{{"lease", UsageQuery::By::lease},
                                                        {"worker", UsageQuery::By::worker},
                                                        {"tenant", UsageQuery::By::tenant},
                                                        {"function", UsageQuery::By::function}};
      const auto kind = kinds.find(value);
      if (kind == kinds.end())
        return Error(Errc::invalid_argument, "by takes lease, worker, tenant or function");
      query.by = kind->second;
    } else if (key == "tenant") {
      query.tenant = value;
    } else if (key == "function") {
      query.function = value;
    } else if (key == "after") {
      const Result<std::uint64_t> after = parse_number(value, "after");
      if (!after) return after.error();
      if (*after > INT64_MAX) return Error(Errc::invalid_argument, "after must be a lease's id");
      query.after = *after;
    } else if (key == "limit") {
      const Result<std::uint64_t> limit = parse_number(value, "limit");
      if (!limit) return limit.error();
      if (*limit == 0 || *limit > limits::usage_rows_max) {
        return Error(Errc::invalid_argument, "limit must be 1 to " + std::to_string(limits::usage_rows_max));
      }
      query.limit = static_cast<std::uint32_t>(*limit);
    } else if (key != "format" || (value != "json" && value != "csv")) {
      return Error(Errc::invalid_argument,
                   "the query takes by, tenant, function, after, limit and format (json or csv)");
    }
  }
  return query;
}

/// RFC 4180. Names are plain by their checks, so that nothing needs quoting and no cell is a formula.
std::string to_csv(const std::vector<api::UsageRow>& rows) {
  std::string text =
      "lease,worker,tenant,function,state,leases,workers,calls_started,calls,execution_ns,hot_ns,lease_ns,"
      "core_ns,gpu_ns\r\n";
  for (const api::UsageRow& row : rows) {
    text += std::to_string(row.lease) + ",";
    text += std::to_string(row.worker) + ",";
    text += row.tenant + "," + row.function_name + "," + row.state;
    for (const std::uint64_t value : {row.leases, row.workers, row.calls_started, row.calls, row.execution_ns,
                                      row.hot_ns, row.lease_ns, row.core_ns, row.gpu_ns}) {
      text += ",";
      text += std::to_string(value);
    }
    text += "\r\n";
  }
  return text;
}

}  // namespace

void Service::add_usage_routes(std::vector<control::Route>& routes) {
  add(routes, "GET", "/v1/usage", 0, &Service::show_usage);
  add(routes, "GET", "/v1/tenants", 0, &Service::show_tenants);
}

/// On the file thread: over many leases it takes long.
void Service::show_usage(const Request& request, const Responder& responder) {
  const Result<UsageQuery> query = parse_query(request);
  if (!query) return responder.send(query.error());
  const auto format = request.query.find("format");
  const bool csv = format != request.query.end() && format->second == "csv";
  if (usage_queries_ >= limits::usage_queries_max) {
    return responder.send(Error(Errc::queue_full, "other accounts are being made up; try again"));
  }
  ++usage_queries_;
  files_.post([this, responder, csv, query = *query, now = now()] {
    Result<std::vector<api::UsageRow>> rows = store_->usage(query, now);
    loop_.post([this, responder, csv, now, rows = std::move(rows)] {
      --usage_queries_;
      if (!rows) return responder.send(rows.error());
      if (csv) return responder.send({.body = to_csv(*rows), .content_type = "text/csv; charset=utf-8"});
      responder.send({.body = api::to_json(api::Usage{lease::to_ms(now), *rows})});
    });
  });
}

void Service::show_tenants(const Request&, const Responder& responder) {
  api::Tenants all;
  for (const auto& [name, tenant] : table_.tenants()) {
    all.tenants.push_back({name, tenant.policy.share, tenant.policy.cores_max, tenant.policy.leases_max,
                           tenant.held.cores, tenant.leases, waiting_.of(name)});
  }
  responder.send({.body = api::to_json(all)});
}

}  // namespace sublet::manager
