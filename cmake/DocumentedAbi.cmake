# The program in docs/abi.md, built and run by ctest.

set(document ${PROJECT_SOURCE_DIR}/docs/abi.md)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${document})
file(READ ${document} text)
if(NOT text MATCHES "\n```cpp\n(.*)\n```")
    message(FATAL_ERROR "${document} has no block of C++")
endif()
file(CONFIGURE OUTPUT documented_abi.cpp CONTENT "${CMAKE_MATCH_1}\n" @ONLY)

add_executable(lattn_documented_abi ${CMAKE_CURRENT_BINARY_DIR}/documented_abi.cpp)
target_link_libraries(lattn_documented_abi PRIVATE lightning_attn)
lattn_link_as_program(lattn_documented_abi)
add_test(NAME documentation.abi COMMAND lattn_documented_abi)
