#include "benchmarks/anatomy/symbols.hpp"

#include <cxxabi.h>
#include <elf.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <vector>

namespace sublet::bench {
namespace {

/// "sublet::f(int)" of "_ZN6sublet1fEi".
std::string readable(const char* name) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(abi::__cxa_demangle(name, nullptr, nullptr, &status),
                                                         &std::free);
  return text != nullptr ? text.get() : name;
}

std::string without_parameters(const std::string& name) {
  std::size_t depth = 0;
  for (std::size_t i = 0; i < name.size(); ++i) {
    if (name[i] == '<') ++depth;
    if (name[i] == '>' && depth > 0) --depth;
    const bool anonymous = name.compare(i, 21, "(anonymous namespace)") == 0;
    if (anonymous) i += 20;
    if (!anonymous && name[i] == '(' && depth == 0) return name.substr(0, i);
  }
  return name;
}

/// A table of the file, every access checked.
template <typename T>
std::vector<T> table(const std::vector<char>& file, std::uint64_t offset, std::uint64_t count) {
  if (offset > file.size() || count > (file.size() - offset) / sizeof(T))
    throw std::runtime_error("a table of it lies outside of it");
  std::vector<T> entries(count);
  if (count > 0) std::memcpy(entries.data(), file.data() + offset, count * sizeof(T));
  return entries;
}

}  // namespace

Symbols::Symbols(const std::filesystem::path& program) : program_(program) {
  std::ifstream stream(program, std::ios::binary);
  const std::vector<char> file{std::istreambuf_iterator<char>(stream), {}};
  if (file.size() < sizeof(Elf64_Ehdr) || std::memcmp(file.data(), ELFMAG, SELFMAG) != 0)
    throw std::runtime_error("cannot read " + program.string() + " as a program");
  const Elf64_Ehdr head = table<Elf64_Ehdr>(file, 0, 1).front();
  const auto sections = table<Elf64_Shdr>(file, head.e_shoff, head.e_shnum);
  for (const Elf64_Shdr& section : sections) {
    if (section.sh_type != SHT_SYMTAB || section.sh_link >= sections.size()) continue;
    const Elf64_Shdr& texts = sections[section.sh_link];
    std::vector<char> names = table<char>(file, texts.sh_offset, texts.sh_size);
    names.push_back('\0');
    for (const Elf64_Sym& symbol :
         table<Elf64_Sym>(file, section.sh_offset, section.sh_size / sizeof(Elf64_Sym))) {
      const bool function = ELF64_ST_TYPE(symbol.st_info) == STT_FUNC && symbol.st_size > 0;
      if (function && symbol.st_name < names.size())
        functions_[symbol.st_value] = {symbol.st_size, readable(names.data() + symbol.st_name)};
    }
  }
  if (functions_.empty())
    throw std::runtime_error(program.string() + " was stripped of its symbols; use the program of the build");
}

std::uint64_t Symbols::offset_of(const std::string& name) const {
  for (const auto& [offset, function] : functions_) {
    // The compiler's cold parts have names of their own, behind the parameters.
    if (function.name.starts_with(name + "(") && function.name.find("[clone") == std::string::npos)
      return offset;
  }
  throw std::runtime_error(program_.string() + " has no function " + name);
}

std::string Symbols::function_at(std::uint64_t offset) const {
  auto found = functions_.upper_bound(offset);
  if (found == functions_.begin()) return {};
  --found;
  return offset < found->first + found->second.bytes ? without_parameters(found->second.name) : std::string();
}

}  // namespace sublet::bench
