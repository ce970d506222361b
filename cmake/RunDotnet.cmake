# cmake -DPASS_ARGUMENTS=<bool> -P RunDotnet.cmake -- dotnet <arguments>

include(${CMAKE_CURRENT_LIST_DIR}/TrailingCommand.cmake)
if(PASS_ARGUMENTS AND NOT "$ENV{LATTN_ARGS}" STREQUAL "")
    string(ASCII 31 separator)
    string(REPLACE ";" "\\;" arguments "$ENV{LATTN_ARGS}")
    string(REPLACE "${separator}" ";" arguments "${arguments}")
    list(APPEND command ${arguments})
endif()

execute_process(COMMAND ${command} RESULT_VARIABLE result)
if(NOT result EQUAL 0)
    list(JOIN command " " line)
    message(FATAL_ERROR "${line}: exit status ${result}")
endif()
