# cmake -DBIN2C= -DFATBIN= -DSTEM= -DOUTPUT= -P EmbedWithBin2c.cmake: a fatbin as a C++ array, for compilers whose
# assembler has no .incbin. mingw-w64 could have it too, but is what tests this way.

execute_process(COMMAND "${BIN2C}" --const --static --type char --name image "${FATBIN}" OUTPUT_VARIABLE array
    RESULT_VARIABLE result)
if(NOT result EQUAL 0)
    message(FATAL_ERROR "bin2c failed for ${FATBIN}")
endif()
# bin2c's own linkage and alignment are not ours to choose: the bytes alone are taken over.
string(FIND "${array}" "image[] = {" begin)
string(FIND "${array}" "};" end REVERSE)
if(begin EQUAL -1 OR end LESS begin)
    message(FATAL_ERROR "bin2c's output for ${FATBIN} has no array named image")
endif()
string(LENGTH "image[] = {" skipped)
math(EXPR begin "${begin} + ${skipped}")
math(EXPR length "${end} - ${begin}")
string(SUBSTRING "${array}" ${begin} ${length} bytes)
file(WRITE "${OUTPUT}" "extern \"C\" {\n"
    "alignas(64) extern const unsigned char lattn_fatbin_${STEM}[] = {${bytes}};\n"
    "extern const unsigned long long lattn_fatbin_${STEM}_bytes = sizeof(lattn_fatbin_${STEM});\n}\n")
