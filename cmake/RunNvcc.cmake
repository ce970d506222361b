# cmake -DREPORT=<file> -P RunNvcc.cmake -- nvcc <arguments>
# Runs nvcc, keeps ptxas' report of registers and spills in a file, and shows what the compiler said when it failed or
# warned.

include(${CMAKE_CURRENT_LIST_DIR}/TrailingCommand.cmake)

execute_process(COMMAND ${command} OUTPUT_VARIABLE output ERROR_VARIABLE output RESULT_VARIABLE result)
if(NOT result EQUAL 0)
    message(FATAL_ERROR "${output}")
endif()
file(WRITE "${REPORT}" "${output}")
if(output MATCHES "warning")
    string(REGEX REPLACE "(^|\n)(ptxas info|    [0-9]+ bytes)[^\n]*" "" warnings "${output}")
    message("${warnings}")
endif()
