// Classifies the held-out images on leased workers and says how well and how fast.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <cxxopts.hpp>
#include <exception>
#include <span>
#include <stdexcept>
#include <string>
#include <sublet/client.hpp>
#include <vector>

#include "examples/digits/dataset.hpp"

namespace {

using Clock = std::chrono::steady_clock;
using Microseconds = std::chrono::duration<double, std::micro>;

struct Options {
  std::string manager;
  std::string data;
  std::string function;
  std::uint32_t workers = 0;
  std::size_t batch = 0;
  std::uint32_t in_flight = 0;
  std::uint32_t rounds = 0;
  double accuracy_min = 0;
  std::vector<std::string> transports;
};

/// One call's place: its buffers, and what is in flight there.
struct Place {
  sublet::Buffer output;
  sublet::Future future;
  std::size_t batch = 0;
  Clock::time_point submitted;
  bool active = false;
};

struct Batch {
  sublet::Buffer input;
  std::span<const std::uint8_t> labels;
};

struct Tally {
  std::size_t images = 0;
  std::size_t correct = 0;
  std::vector<double> latencies_us;
};

std::vector<Batch> make_batches(sublet::Lease& lease, const digits::Dataset& data, std::size_t size) {
  std::vector<Batch> batches;
  for (std::size_t first = 0; first < data.images.size(); first += size) {
    const std::size_t count = std::min(size, data.images.size() - first);
    Batch batch{lease.allocate(count * digits::pixels).value(), std::span(data.labels).subspan(first, count)};
    std::memcpy(batch.input.data(), data.images.data() + first, batch.input.size());
    batches.push_back(std::move(batch));
  }
  return batches;
}

void count_labels(const Batch& batch, const Place& place, std::size_t bytes, Tally& tally) {
  if (bytes != batch.labels.size()) throw std::runtime_error("a reply has the wrong number of labels");
  for (std::size_t i = 0; i < bytes; ++i) {
    tally.correct += std::to_integer<std::uint8_t>(place.output.data()[i]) == batch.labels[i] ? 1 : 0;
  }
  tally.images += bytes;
}

/// Sends every batch `rounds` times and keeps as many calls in flight as there are places.
Tally classify(sublet::Lease& lease, const std::vector<Batch>& batches, std::vector<Place>& places,
               std::size_t rounds) {
  Tally tally;
  const std::size_t total = batches.size() * rounds;
  tally.latencies_us.reserve(total);
  std::size_t sent = 0;
  while (tally.latencies_us.size() < total) {
    for (Place& place : places) {
      if (place.active && place.future.ready()) {
        const std::size_t bytes = place.future.wait().value();
        tally.latencies_us.push_back(Microseconds(Clock::now() - place.submitted).count());
        count_labels(batches[place.batch], place, bytes, tally);
        place.active = false;
      }
      if (!place.active && sent < total) {
        place.batch = sent % batches.size();
        place.submitted = Clock::now();
        place.future = lease.submit(batches[place.batch].input, place.output, {.idempotent = true}).value();
        place.active = true;
        ++sent;
      }
    }
  }
  return tally;
}

double percentile(const std::vector<double>& sorted, double part) {
  return sorted[static_cast<std::size_t>(part * static_cast<double>(sorted.size() - 1))];
}

void print_latencies(const char* title, std::vector<double> latencies) {
  std::sort(latencies.begin(), latencies.end());
  std::printf("%s: p50 %.1f us, p90 %.1f us, p99 %.1f us, max %.1f us\n", title, percentile(latencies, 0.5),
              percentile(latencies, 0.9), percentile(latencies, 0.99), latencies.back());
}

void print_workers(const sublet::Lease& lease) {
  for (const sublet::WorkerStatus& worker : lease.workers()) {
    std::printf("worker %u on %s: %s (%s)\n", worker.worker, worker.node.c_str(), worker.transport.c_str(),
                worker.address.c_str());
  }
}

std::vector<Place> make_places(sublet::Lease& lease, std::size_t count, std::size_t batch) {
  std::vector<Place> places(count);
  for (Place& place : places) place.output = lease.allocate(batch).value();
  return places;
}

int run(const Options& options) {
  const digits::Dataset data = digits::held_out(digits::load(options.data));
  auto site = sublet::Site::connect(options.manager).value();
  auto lease = site.lease({.function = options.function,
                           .workers = options.workers,
                           .transports = {.require = options.transports},
                           .in_flight = options.in_flight})
                   .value();
  print_workers(lease);

  const std::vector<Batch> batches = make_batches(lease, data, options.batch);
  std::vector<Place> one = make_places(lease, 1, options.batch);
  std::vector<Place> many =
      make_places(lease, std::size_t{options.workers} * options.in_flight, options.batch);

  const Tally alone = classify(lease, batches, one, options.rounds);
  const auto started = Clock::now();
  const Tally crowd = classify(lease, batches, many, options.rounds);
  const double seconds = std::chrono::duration<double>(Clock::now() - started).count();

  const double accuracy =
      static_cast<double>(alone.correct + crowd.correct) / static_cast<double>(alone.images + crowd.images);
  std::printf("held-out images: %zu, accuracy: %.2f %%\n", data.images.size(), 100 * accuracy);
  std::printf("%zu calls of %zu images, %zu in flight: %.0f calls/s, %.0f images/s\n",
              crowd.latencies_us.size(), options.batch, many.size(),
              static_cast<double>(crowd.latencies_us.size()) / seconds,
              static_cast<double>(crowd.images) / seconds);
  print_latencies("latency, one call in flight", alone.latencies_us);
  print_latencies("latency, all in flight", crowd.latencies_us);
  lease.release().value();
  if (accuracy < options.accuracy_min) {
    std::fprintf(stderr, "digits-client: the accuracy is below %.2f %%\n", 100 * options.accuracy_min);
    return 1;
  }
  return 0;
}

/// Nothing to run when it has printed the help.
bool parse(int argc, char** argv, Options& options) {
  cxxopts::Options parser("digits-client", "Classifies the held-out UCI digits on leased workers.");
  parser.add_options()                                                                                 //
      ("manager", "URL of the manager", cxxopts::value(options.manager))                               //
      ("data", "digits.csv.gz", cxxopts::value(options.data))                                          //
      ("function", "Name of the function", cxxopts::value(options.function)->default_value("digits"))  //
      ("workers", "Workers to lease", cxxopts::value(options.workers)->default_value("2"))             //
      ("batch", "Images a call", cxxopts::value(options.batch)->default_value("16"))                   //
      ("in-flight", "Calls in flight on each worker, a power of two",
       cxxopts::value(options.in_flight)->default_value("8"))                                             //
      ("rounds", "Times that every image is sent", cxxopts::value(options.rounds)->default_value("200"))  //
      ("accuracy-min", "Exit 1 below this", cxxopts::value(options.accuracy_min)->default_value("0.95"))  //
      ("transport", "Allowed transports in order of preference (default: all)",
       cxxopts::value(options.transports))  //
      ("help", "Print this");
  const auto parsed = parser.parse(argc, argv);
  if (parsed.count("help") > 0) {
    std::puts(parser.help().c_str());
    return false;
  }
  if (!parsed.unmatched().empty())
    throw std::invalid_argument("unknown argument " + parsed.unmatched().front());
  if (options.manager.empty() || options.data.empty())
    throw std::invalid_argument("--manager and --data are needed; --help lists all");
  if (options.batch == 0 || options.rounds == 0 || options.in_flight == 0 || options.workers == 0)
    throw std::invalid_argument("--batch, --rounds, --in-flight and --workers are at least 1");
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  try {
    if (!parse(argc, argv, options)) return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "digits-client: %s\n", error.what());
    return 2;
  }
  try {
    return run(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "digits-client: %s\n", error.what());
    return 1;
  }
}
