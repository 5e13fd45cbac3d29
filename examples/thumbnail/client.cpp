// Scales photographs on leased workers, all at once, and writes the thumbnails to a directory.
#include <chrono>
#include <cstdio>
#include <cstring>
#include <cxxopts.hpp>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <sublet/client.hpp>
#include <vector>

#include "examples/thumbnail/request.hpp"

namespace {

struct Options {
  std::string manager;
  std::string function;
  std::string directory;
  std::uint32_t workers = 0;
  thumbnail::Request request;
  std::vector<std::string> photographs;
};

struct Job {
  std::filesystem::path path;
  sublet::Buffer input;
  sublet::Buffer output;
  sublet::Future future;
};

std::vector<char> read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path.string());
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

Job start(sublet::Lease& lease, const Options& options, const std::filesystem::path& path) {
  const std::vector<char> jpeg = read_file(path);
  const std::size_t edge = options.request.edge_max;
  // A JPEG of the best quality is smaller than its pixels; the headers take the rest.
  Job job{path,
          lease.allocate(sizeof options.request + jpeg.size()).value(),
          lease.allocate(edge * edge * 3 + 4096).value(),
          {}};
  std::memcpy(job.input.data(), &options.request, sizeof options.request);
  std::memcpy(job.input.data() + sizeof options.request, jpeg.data(), jpeg.size());
  job.future = lease.submit(job.input, job.output, {.idempotent = true}).value();
  return job;
}

void finish(Job& job, const Options& options) {
  const std::size_t bytes = job.future.wait().value();
  const auto target = std::filesystem::path(options.directory) /
                      (job.path.stem().string() + "-" + std::to_string(options.request.edge_max) + ".jpg");
  std::ofstream file(target, std::ios::binary);
  file.write(reinterpret_cast<const char*>(job.output.data()), static_cast<std::streamsize>(bytes));
  if (!file.flush()) throw std::runtime_error("cannot write " + target.string());
  std::printf("%s: %zu bytes -> %s: %zu bytes\n", job.path.c_str(), job.input.size() - sizeof options.request,
              target.c_str(), bytes);
}

/// Tells of every photograph that failed and does the others.
int run(const Options& options) {
  auto site = sublet::Site::connect(options.manager).value();
  auto lease = site.lease({.function = options.function, .workers = options.workers}).value();
  std::vector<Job> jobs;
  for (const std::string& path : options.photographs) jobs.push_back(start(lease, options, path));
  int failures = 0;
  for (Job& job : jobs) {
    try {
      finish(job, options);
    } catch (const std::exception& error) {
      std::fprintf(stderr, "thumbnail-client: %s: %s\n", job.path.c_str(), error.what());
      ++failures;
    }
  }
  return failures == 0 ? 0 : 1;
}

/// Nothing to run when it has printed the help.
bool parse(int argc, char** argv, Options& options) {
  cxxopts::Options parser("thumbnail-client", "Scales photographs on leased workers.");
  parser.positional_help("JPEG...").add_options()                                                         //
      ("manager", "URL of the manager", cxxopts::value(options.manager))                                  //
      ("function", "Name of the function", cxxopts::value(options.function)->default_value("thumbnail"))  //
      ("out", "Directory for the thumbnails", cxxopts::value(options.directory)->default_value("."))      //
      ("edge", "Pixels of the longer edge",
       cxxopts::value(options.request.edge_max)->default_value("160"))                      //
      ("workers", "Workers to lease", cxxopts::value(options.workers)->default_value("2"))  //
      ("photographs", "JPEG files", cxxopts::value(options.photographs))                    //
      ("help", "Print this");
  parser.parse_positional("photographs");
  const auto parsed = parser.parse(argc, argv);
  if (parsed.count("help") > 0) {
    std::puts(parser.help().c_str());
    return false;
  }
  if (options.manager.empty() || options.photographs.empty())
    throw std::invalid_argument("--manager and at least one JPEG are needed; --help lists all");
  if (options.request.edge_max < 1 || options.request.edge_max > thumbnail::edge_limit)
    throw std::invalid_argument("--edge is 1 to " + std::to_string(thumbnail::edge_limit));
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  try {
    if (!parse(argc, argv, options)) return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "thumbnail-client: %s\n", error.what());
    return 2;
  }
  try {
    return run(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "thumbnail-client: %s\n", error.what());
    return 1;
  }
}
