#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>

#include "runtime/memory/region.hpp"
#include "tests/catch.hpp"

using namespace sublet;
using memory::Region;

TEST_CASE("a region is whole pages, zeroed, and shared by whoever opens its file") {
  Region region = Region::create(1, "test").value();
  REQUIRE(region.size() == static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)));
  REQUIRE(region.data()[region.size() - 1] == std::byte{0});

  Region same = Region::open(FileDescriptor(::dup(region.descriptor())), region.size()).value();
  region.data()[7] = std::byte{42};
  REQUIRE(same.data()[7] == std::byte{42});
}

namespace {

/// A number of /proc, in KiB or as it stands; 0 when there is no such line at or after `from`.
std::size_t number_in(const char* path, const std::string& from, const std::string& name) {
  std::ifstream file(path);
  bool begun = from.empty();
  for (std::string line; std::getline(file, line);) {
    begun = begun || line.starts_with(from);
    if (begun && line.starts_with(name)) return std::stoul(line.substr(name.size()));
  }
  return 0;
}

}  // namespace

TEST_CASE("a large region lies on huge pages where there are enough, and on others where not") {
  const std::size_t huge = number_in("/proc/meminfo", "", "Hugepagesize:");
  const std::size_t free = number_in("/proc/meminfo", "", "HugePages_Free:");
  const std::size_t wanted = std::max(std::size_t{32} << 20, 8 * huge << 10);
  if (huge == 0 || free < wanted / (huge << 10))
    WARN("this system has no huge pages for it: it must go without");
  const Region region = Region::create(wanted - 1, "test").value();
  std::memset(region.data(), 42, region.size());
  std::ostringstream begin;
  begin << std::hex << reinterpret_cast<std::uintptr_t>(region.data()) << '-';
  const std::size_t page = number_in("/proc/self/smaps", begin.str(), "KernelPageSize:");
  REQUIRE(region.size() == wanted);
  if (huge > 0 && free >= wanted / (huge << 10)) {
    REQUIRE(page == huge);
  } else {
    REQUIRE(page == static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)) >> 10);
  }
  const Region same = Region::open(FileDescriptor(::dup(region.descriptor())), region.size()).value();
  REQUIRE(same.data()[wanted - 2] == std::byte{42});
}

TEST_CASE("a region knows what lies in it") {
  const Region region = Region::create(4096, "test").value();
  REQUIRE(region.contains(region.data(), region.size()));
  REQUIRE(region.contains(region.data() + region.size(), 0));
  REQUIRE_FALSE(region.contains(region.data() + 1, region.size()));
  REQUIRE_FALSE(region.contains(region.data() - 1, 1));
  REQUIRE_FALSE(region.contains(region.data(), SIZE_MAX));
  REQUIRE_FALSE(Region().contains(nullptr, 0));
}

TEST_CASE("a region cannot shrink under those who map it") {
  const Region region = Region::create(8192, "test").value();
  REQUIRE(::ftruncate(region.descriptor(), 4096) != 0);
  REQUIRE(::ftruncate(region.descriptor(), 1 << 20) != 0);
}

TEST_CASE("a region that could shrink or is not of the announced size is refused") {
  FileDescriptor unsealed(::memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  REQUIRE(::ftruncate(unsealed.get(), 4096) == 0);
  REQUIRE(Region::open(std::move(unsealed), 4096).error().code() == Errc::protocol_error);

  const Region region = Region::create(4096, "test").value();
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{4095}, std::size_t{1} << 40}) {
    REQUIRE(Region::open(FileDescriptor(::dup(region.descriptor())), bytes).error().code() ==
            Errc::protocol_error);
  }
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  FileDescriptor writer(ends[1]);
  REQUIRE_FALSE(Region::open(FileDescriptor(ends[0]), 4096).ok());
  REQUIRE_FALSE(Region::open(FileDescriptor(), 4096).ok());
}

TEST_CASE("an impossible region is an error") {
  REQUIRE(Region::create(0, "test").error().code() == Errc::invalid_argument);
  REQUIRE_FALSE(Region::create(SIZE_MAX, "test").ok());
  REQUIRE_FALSE(Region::create(std::size_t{1} << 62, "test").ok());
}

TEST_CASE("a moved region lets go of its memory once") {
  Region first = Region::create(4096, "test").value();
  std::byte* const data = first.data();
  Region second = std::move(first);
  REQUIRE(second.data() == data);
  REQUIRE(first.data() == nullptr);  // NOLINT(bugprone-use-after-move): the state under test
  second = Region::create(4096, "test").value();
  REQUIRE(second.size() == 4096);
}
