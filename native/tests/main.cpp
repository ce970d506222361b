#include "child_process.h"

int main(int argc, char** argv) {
    ::testing::InitGoogleTest(&argc, argv);
    lattn::test::set_executable(argv[0]);
    return RUN_ALL_TESTS();
}
