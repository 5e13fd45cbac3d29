# Flags live on this interface target; every target of the project links it and nobody else sees it.
add_library(sublet_flags INTERFACE)
target_include_directories(sublet_flags INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_options(sublet_flags INTERFACE -Wall -Wextra -Wshadow -Wno-missing-field-initializers
                       $<$<COMPILE_LANGUAGE:CXX>:-Wnon-virtual-dtor>)
# GCC 12 takes the joining of texts for copies that overlap (its bug 105329).
target_compile_options(sublet_flags INTERFACE $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
if(SUBLET_DEVELOPER)
  target_compile_options(sublet_flags INTERFACE -Werror)
endif()
if(SUBLET_SANITIZE)
  target_compile_options(sublet_flags INTERFACE -fsanitize=${SUBLET_SANITIZE} -fno-omit-frame-pointer -g1)
  target_link_options(sublet_flags INTERFACE -fsanitize=${SUBLET_SANITIZE})
endif()
if(SUBLET_FUZZ)
  target_compile_options(sublet_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# sublet_reads_options(TARGET): for targets that include cxxopts. With sanitizers GCC 12 takes std::regex,
# which cxxopts uses, for reading what nobody wrote; it does not without.
function(sublet_reads_options name)
  if(SUBLET_SANITIZE AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(${name} PRIVATE -Wno-maybe-uninitialized)
  endif()
endfunction()

# sublet_layer(NAME SOURCES... LINK ...): one static library for one layer (folder).
function(sublet_layer name)
  cmake_parse_arguments(LAYER "" "" "SOURCES;LINK" ${ARGN})
  add_library(${name} STATIC ${LAYER_SOURCES})
  target_link_libraries(${name} PUBLIC sublet_flags ${LAYER_LINK})
endfunction()

# sublet_program(NAME SOURCES... LINK ...): one installed program.
function(sublet_program name)
  cmake_parse_arguments(PROGRAM "" "" "SOURCES;LINK" ${ARGN})
  add_executable(${name} ${PROGRAM_SOURCES})
  target_link_libraries(${name} PRIVATE sublet_flags ${PROGRAM_LINK})
  sublet_reads_options(${name})
  set_target_properties(${name} PROPERTIES INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")
  install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endfunction()
