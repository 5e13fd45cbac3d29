#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace sublet::cli {

enum class Style { plain, bold, dim, good, warning, bad };

/// Puts colours around text, or does not.
class Palette {
 public:
  explicit Palette(bool coloured) noexcept : coloured_(coloured) {}
  [[nodiscard]] std::string paint(const std::string& text, Style style) const;

 private:
  bool coloured_;
};

/// Colours when standard output is a terminal that is not dumb, NO_COLOR is unset and `wanted`.
[[nodiscard]] Palette palette_for_output(bool wanted);

/// The text without what could steer a terminal: control characters and what is not UTF-8 become '?'.
/// Newlines stay when `keep_lines`.
[[nodiscard]] std::string printable(std::string_view text, bool keep_lines = false);

struct ScreenSize {
  std::size_t columns = 80;
  std::size_t rows = 24;
};
[[nodiscard]] ScreenSize screen_size();

/// At most `columns` columns of a line that may hold colours.
[[nodiscard]] std::string cut(const std::string& line, std::size_t columns);

/// While it lives: the terminal's alternate screen, without echo, line editing and cursor; key presses can
/// be read one by one. Gives everything back at its end, and when SIGTERM or SIGHUP asks to end.
class FullScreen {
 public:
  FullScreen();
  ~FullScreen();
  FullScreen(const FullScreen&) = delete;
  FullScreen& operator=(const FullScreen&) = delete;

  /// Waits for a key, a new size of the screen or a request to end, at most `wait_max`.
  enum class Event { nothing, quit, resized };
  [[nodiscard]] Event wait(std::chrono::milliseconds wait_max);

 private:
  struct Saved;
  std::unique_ptr<Saved> saved_;
};

/// While it lives, the first Ctrl-C or SIGTERM only sets a mark, and `message` goes to standard error; the
/// second ends the process. One at a time.
class Interrupt {
 public:
  explicit Interrupt(std::string_view message) noexcept;
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;
  [[nodiscard]] static bool wanted() noexcept;
};

}  // namespace sublet::cli
