#include "runtime/manager/slurm_commands.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "runtime/base/clock.hpp"
#include "runtime/base/file_descriptor.hpp"
#include "runtime/base/limits.hpp"

namespace sublet::manager::slurm {
namespace {

constexpr std::size_t complaint_bytes_max = 4096;
constexpr std::size_t complaint_shown_max = 200;
constexpr std::chrono::milliseconds death_max{1000};  ///< From SIGKILL; a process may hang in the kernel.
constexpr int no_status = -1;

Error failed(const std::string& program, const std::string& why) {
  return {Errc::unavailable, program + ": " + why};
}

struct Pipe {
  FileDescriptor reader;
  FileDescriptor writer;
};

Result<Pipe> make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return Error(Errc::io_error, std::strerror(errno));
  return Pipe{FileDescriptor(ends[0]), FileDescriptor(ends[1])};
}

std::vector<std::string> environment(const std::vector<std::string>& changes) {
  std::vector<std::string> variables;
  const auto name_of = [](const std::string& text) { return text.substr(0, text.find('=')); };
  for (char** each = environ; *each != nullptr; ++each) {
    const std::string name = name_of(*each);
    if (std::none_of(changes.begin(), changes.end(), [&](const auto& text) { return name_of(text) == name; }))
      variables.emplace_back(*each);
  }
  std::copy_if(changes.begin(), changes.end(), std::back_inserter(variables),
               [](const std::string& text) { return text.find('=') != std::string::npos; });
  return variables;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> all;
  for (std::string& text : texts) all.push_back(text.data());
  all.push_back(nullptr);
  return all;
}

/// A started program: ended, and waited for in bounded time, with this.
class Child {
 public:
  static Result<Child> start(const std::string& program, std::vector<std::string> arguments,
                             const std::vector<std::string>& changes) {
    Result<Pipe> out = make_pipe();
    if (!out) return out.error();
    Result<Pipe> complaint = make_pipe();
    if (!complaint) return complaint.error();
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out->writer.get(), STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, complaint->writer.get(), STDERR_FILENO);
    // This thread has its signals blocked; what the program starts shall end with it.
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
    arguments.insert(arguments.begin(), program);
    std::vector<std::string> variables = environment(changes);
    pid_t pid = -1;
    const int error = ::posix_spawnp(&pid, program.c_str(), &actions, &attributes, pointers(arguments).data(),
                                     pointers(variables).data());
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0) return failed(program, std::string("cannot be started: ") + std::strerror(error));
    return Child(pid, std::move(out->reader), std::move(complaint->reader));
  }
  Child(Child&& other) noexcept
      : pid_(std::exchange(other.pid_, -1)),
        out_(std::move(other.out_)),
        complaint_(std::move(other.complaint_)) {}
  Child& operator=(Child&&) = delete;
  ~Child() {
    if (pid_ > 0) static_cast<void>(end());
  }

  [[nodiscard]] int out() const noexcept { return out_.get(); }
  [[nodiscard]] int complaint() const noexcept { return complaint_.get(); }

  /// Waits for its end, by force when it does not come. @return As waitpid() has it, or no_status.
  int end() {
    const pid_t pid = std::exchange(pid_, -1);
    // glibc 2.36 declares pidfd_open() for C only.
    const FileDescriptor handle(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    pollfd gone{.fd = handle.get(), .events = POLLIN, .revents = 0};
    ::poll(&gone, 1, static_cast<int>(death_max.count()));
    int status = no_status;
    if (::waitpid(pid, &status, WNOHANG) == pid) return status;
    ::kill(-pid, SIGKILL);
    ::poll(&gone, 1, static_cast<int>(death_max.count()));
    return ::waitpid(pid, &status, WNOHANG) == pid ? status : no_status;
  }
  void kill() const noexcept { ::kill(-pid_, SIGKILL); }

 private:
  Child(pid_t pid, FileDescriptor out, FileDescriptor complaint)
      : pid_(pid), out_(std::move(out)), complaint_(std::move(complaint)) {}

  pid_t pid_;
  FileDescriptor out_;
  FileDescriptor complaint_;
};

/// Appends what is there; false at its end. Beyond `most` it is thrown away.
bool read_some(int descriptor, std::string& text, std::size_t most) {
  std::array<char, 65'536> some;  // NOLINT(cppcoreguidelines-pro-type-member-init): read() fills it.
  const ssize_t got = ::read(descriptor, some.data(), some.size());
  if (got < 0) return errno == EINTR;
  text.append(some.data(), std::min(static_cast<std::size_t>(got), most - std::min(most, text.size())));
  return got > 0;
}

std::string first_line(const std::string& text) {
  std::string line = text.substr(0, std::min(text.find('\n'), complaint_shown_max));
  std::replace_if(
      line.begin(), line.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return line;
}

Result<std::string> read_all(const Child& child, const std::string& program, std::string& complaint,
                             std::chrono::milliseconds timeout, std::size_t bytes_max, int stop) {
  std::string out;
  std::array<pollfd, 3> wait{{{.fd = child.out(), .events = POLLIN, .revents = 0},
                              {.fd = child.complaint(), .events = POLLIN, .revents = 0},
                              {.fd = stop, .events = POLLIN, .revents = 0}}};
  const TimePoint end = SteadyClock::now() + timeout;
  while (wait[0].fd >= 0 || wait[1].fd >= 0) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - SteadyClock::now());
    if (left.count() <= 0) {
      return Error(Errc::timeout, program + " did not end within " + std::to_string(timeout.count()) + " ms");
    }
    if (::poll(wait.data(), wait.size(), static_cast<int>(left.count())) < 0 && errno != EINTR)
      return Error(Errc::io_error, std::string("poll: ") + std::strerror(errno));
    if (wait[2].revents != 0) return Error(Errc::closed);
    if (wait[0].revents != 0 && !read_some(child.out(), out, bytes_max + 1)) wait[0].fd = -1;
    if (wait[1].revents != 0 && !read_some(child.complaint(), complaint, complaint_bytes_max))
      wait[1].fd = -1;
    if (out.size() > bytes_max) {
      return Error(Errc::too_large, program + " printed more than " + std::to_string(bytes_max) + " bytes");
    }
  }
  return out;
}

}  // namespace

Result<std::string> run_program(const std::string& program, const std::vector<std::string>& arguments,
                                const std::vector<std::string>& changes, std::chrono::milliseconds timeout,
                                std::size_t bytes_max, int stop) {
  Result<Child> child = Child::start(program, arguments, changes);
  if (!child) return child.error();
  std::string complaint;
  Result<std::string> out = read_all(*child, program, complaint, timeout, bytes_max, stop);
  if (!out) child->kill();
  const int status = child->end();
  if (!out) return out.error();
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return out;
  return failed(program, complaint.empty() ? "it failed without a word" : first_line(complaint));
}

Result<Picture> take_picture(const std::string& folder, int stop) {
  const std::string before = folder.empty() ? "" : folder + "/";
  // What an administrator's own settings would leave out or print otherwise.
  const std::vector<std::string> changes{"LC_ALL=C",        "SLURM_TIME_FORMAT=%s", "SINFO_FORMAT",
                                         "SINFO_PARTITION", "SINFO_SORT",           "SQUEUE_FORMAT",
                                         "SQUEUE_FORMAT2",  "SQUEUE_STATES",        "SQUEUE_PARTITION",
                                         "SQUEUE_USERS",    "SQUEUE_ACCOUNT",       "SQUEUE_ARRAY"};
  const WallTime now = std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
  const Result<std::string> nodes =
      run_program(before + "sinfo", {"--all", "--json"}, changes, limits::slurm_command_max,
                  limits::slurm_output_bytes_max, stop);
  if (!nodes) return nodes.error();
  const Result<std::string> jobs =
      run_program(before + "squeue", {"--all", "--noheader", "--states=PD,R,S", "--format", squeue_format},
                  changes, limits::slurm_command_max, limits::slurm_output_bytes_max, stop);
  if (!jobs) return jobs.error();
  return parse_picture(*nodes, *jobs, now);
}

}  // namespace sublet::manager::slurm
