// Programs that do what sinfo must not do.

#include "runtime/manager/slurm_commands.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

#include "runtime/base/clock.hpp"
#include "runtime/base/file_descriptor.hpp"
#include "tests/catch.hpp"

using namespace sublet;
using namespace std::chrono_literals;

namespace {

constexpr auto patience = 30s;

struct Runner {
  FileDescriptor stop{::eventfd(0, EFD_CLOEXEC)};

  Result<std::string> shell(const std::string& script, std::chrono::milliseconds timeout = patience,
                            std::size_t most = 1000) const {
    return manager::slurm::run_program("/bin/sh", {"-c", script}, {"ADDED=1", "HOME"}, timeout, most,
                                       stop.get());
  }
  [[nodiscard]] Errc code(const std::string& script, std::chrono::milliseconds timeout = patience) const {
    const Result<std::string> done = shell(script, timeout);
    REQUIRE(!done.ok());
    return done.error().code();
  }
};

}  // namespace

TEST_CASE("a program's output comes back, with its environment as asked", "[slurm]") {
  const Runner runner;
  CHECK(runner.shell("printf \"$ADDED-${HOME-none}\"; cat").value() == "1-none");
}

TEST_CASE("a program that fails is quoted in a line", "[slurm]") {
  const Runner runner;
  const Result<std::string> failed = runner.shell("echo half; printf 'no \\033 answer\\nmore' >&2; exit 1");
  REQUIRE(!failed.ok());
  CHECK(failed.error().code() == Errc::unavailable);
  CHECK(failed.error().detail() == "/bin/sh: no ? answer");
  CHECK(runner.code("kill -9 $$") == Errc::unavailable);
  CHECK(manager::slurm::run_program("/no/such", {}, {}, patience, 10, runner.stop.get()).error().code() ==
        Errc::unavailable);
}

TEST_CASE("a program that hangs is ended with what it started", "[slurm]") {
  const Runner runner;
  const TimePoint begin = SteadyClock::now();
  CHECK(runner.code("sleep 1000 & sleep 1000", 50ms) == Errc::timeout);
  CHECK(runner.code("trap '' TERM; exec >&- 2>&-; sleep 1000", patience) == Errc::unavailable);
  CHECK(SteadyClock::now() - begin < patience);
}

TEST_CASE("a program that prints for ever is ended", "[slurm]") {
  const Runner runner;
  CHECK(runner.code("yes") == Errc::too_large);
  CHECK(runner.code("yes >&2", 200ms) == Errc::timeout);
  CHECK(runner.shell("head -c 1000 /dev/zero").value().size() == 1000);
  CHECK(runner.code("head -c 1001 /dev/zero") == Errc::too_large);
}

TEST_CASE("a wait for a program can be stopped", "[slurm]") {
  const Runner runner;
  const std::uint64_t one = 1;
  REQUIRE(::write(runner.stop.get(), &one, sizeof(one)) == sizeof(one));
  CHECK(runner.code("sleep 1000") == Errc::closed);
}
