#include "client/cli/terminal.hpp"

#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace sublet::cli {

namespace {

constexpr std::string_view enter_screen = "\x1b[?1049h\x1b[?25l";
constexpr std::string_view leave_screen = "\x1b[?25h\x1b[?1049l";

volatile std::sig_atomic_t end_asked = 0;
volatile std::sig_atomic_t size_changed = 0;
std::string_view interrupt_message;

void say(int descriptor, std::string_view text) noexcept {
  while (!text.empty()) {
    const ssize_t count = ::write(descriptor, text.data(), text.size());
    if (count < 0 && errno != EINTR) return;
    if (count > 0) text.remove_prefix(static_cast<std::size_t>(count));
  }
}

void on_end(int) {
  end_asked = 1;
}
void on_size(int) {
  size_changed = 1;
}
void on_interrupt(int) {
  const int kept = errno;
  end_asked = 1;
  say(STDERR_FILENO, interrupt_message);
  errno = kept;
}

void handle(int signal, void (*handler)(int), int flags) noexcept {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = flags;
  ::sigaction(signal, &action, nullptr);
}

/// Characters above ASCII that steer a terminal or turn the direction of what follows.
bool steers(std::uint32_t code) noexcept {
  return code < 0xa0 || code == 0x200e || code == 0x200f || (code >= 0x202a && code <= 0x202e) ||
         (code >= 0x2066 && code <= 0x2069);
}

/// The bytes of the UTF-8 character that `text` starts with; 0 when it starts with none, or with a control
/// character.
std::size_t character_bytes(std::string_view text) noexcept {
  const auto byte = [&](std::size_t at) { return static_cast<unsigned char>(text[at]); };
  if (byte(0) < 0x80) return byte(0) >= ' ' && byte(0) != 0x7f ? 1 : 0;
  const std::size_t size = byte(0) >= 0xf0 ? 4 : byte(0) >= 0xe0 ? 3 : 2;
  if (byte(0) < 0xc2 || byte(0) > 0xf4 || text.size() < size) return 0;
  std::uint32_t code = byte(0) & (0xffU >> (size + 1));
  for (std::size_t at = 1; at < size; ++at) {
    if ((byte(at) & 0xc0U) != 0x80) return 0;
    code = code << 6 | (byte(at) & 0x3fU);
  }
  constexpr std::array<std::uint32_t, 5> least{0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = code >= 0xd800 && code <= 0xdfff;
  return code >= least.at(size) && code <= 0x10ffff && !surrogate && !steers(code) ? size : 0;
}

}  // namespace

std::string Palette::paint(const std::string& text, Style style) const {
  if (!coloured_ || style == Style::plain || text.empty()) return text;
  constexpr std::array<const char*, 6> codes{"0", "1", "2", "32", "33", "31"};
  return std::string("\x1b[") + codes.at(static_cast<std::size_t>(style)) + "m" + text + "\x1b[0m";
}

Palette palette_for_output(bool wanted) {
  const char* const terminal = std::getenv("TERM");
  const bool dumb = terminal == nullptr || std::strcmp(terminal, "dumb") == 0;
  const char* const refused = std::getenv("NO_COLOR");
  return Palette(wanted && !dumb && (refused == nullptr || *refused == '\0') && ::isatty(STDOUT_FILENO) == 1);
}

std::string printable(std::string_view text, bool keep_lines) {
  std::string out;
  while (!text.empty()) {
    const std::size_t size = character_bytes(text);
    if (size == 0) {
      out += keep_lines && text.front() == '\n' ? '\n' : '?';
    } else {
      out += text.substr(0, size);
    }
    text.remove_prefix(size == 0 ? 1 : size);
  }
  return out;
}

ScreenSize screen_size() {
  for (const int descriptor : {STDOUT_FILENO, STDERR_FILENO}) {
    winsize size{};
    if (::ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0) {
      return {size.ws_col, size.ws_row};
    }
  }
  return {};
}

std::string cut(const std::string& line, std::size_t columns) {
  std::string out;
  bool coloured = false;
  std::size_t column = 0;
  for (std::size_t at = 0; at < line.size();) {
    if (line[at] == '\x1b') {
      const std::size_t end = std::min(line.find('m', at), line.size() - 1);
      out.append(line, at, end + 1 - at);
      coloured = true;
      at = end + 1;
      continue;
    }
    const bool starts_character = (static_cast<unsigned char>(line[at]) & 0xc0U) != 0x80;
    if (starts_character && column++ == columns) break;
    out += line[at++];
  }
  return coloured ? out + "\x1b[0m" : out;
}

struct FullScreen::Saved {
  termios terminal{};
  bool raw = false;
};

FullScreen::FullScreen() : saved_(std::make_unique<Saved>()) {
  end_asked = 0;
  size_changed = 0;
  if (::tcgetattr(STDIN_FILENO, &saved_->terminal) == 0) {
    termios raw = saved_->terminal;
    // Ctrl-C and Ctrl-Z come as keys: a stopped process would leave the screen as it is.
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO | ISIG);
    raw.c_cc[VMIN] = 0;
    raw.c_cc[VTIME] = 0;
    saved_->raw = ::tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
  }
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) handle(signal, on_end, 0);
  handle(SIGWINCH, on_size, 0);
  say(STDOUT_FILENO, enter_screen);
}

FullScreen::~FullScreen() {
  say(STDOUT_FILENO, leave_screen);
  if (saved_->raw) ::tcsetattr(STDIN_FILENO, TCSANOW, &saved_->terminal);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGWINCH}) handle(signal, SIG_DFL, 0);
}

FullScreen::Event FullScreen::wait(std::chrono::milliseconds wait_max) {
  // Signals are let in only while ppoll sleeps, so that none comes between the look at its mark and the
  // sleep.
  sigset_t held;
  sigset_t usual;
  ::sigemptyset(&held);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGWINCH}) ::sigaddset(&held, signal);
  ::sigprocmask(SIG_BLOCK, &held, &usual);
  pollfd keys{STDIN_FILENO, POLLIN, 0};
  const timespec most{wait_max.count() / 1000, wait_max.count() % 1000 * 1'000'000};
  const bool marked = end_asked != 0 || size_changed != 0;
  const int ready = marked ? 0 : ::ppoll(&keys, saved_->raw ? 1 : 0, &most, &usual);
  ::sigprocmask(SIG_SETMASK, &usual, nullptr);
  if (end_asked != 0) return Event::quit;
  if (size_changed != 0) {
    size_changed = 0;
    return Event::resized;
  }
  if (ready <= 0) return Event::nothing;
  char key = 0;
  const ssize_t count = ::read(STDIN_FILENO, &key, 1);
  constexpr char control_c = 3;
  // A terminal that has gone away is readable for ever, with nothing to read.
  if (count <= 0 || key == 'q' || key == 'Q' || key == control_c) return Event::quit;
  return Event::nothing;
}

Interrupt::Interrupt(std::string_view message) noexcept {
  end_asked = 0;
  interrupt_message = message;
  handle(SIGINT, on_interrupt, static_cast<int>(SA_RESETHAND) | SA_RESTART);
  handle(SIGTERM, on_interrupt, static_cast<int>(SA_RESETHAND) | SA_RESTART);
}

Interrupt::~Interrupt() {
  handle(SIGINT, SIG_DFL, 0);
  handle(SIGTERM, SIG_DFL, 0);
}

bool Interrupt::wanted() noexcept {
  return end_asked != 0;
}

}  // namespace sublet::cli
