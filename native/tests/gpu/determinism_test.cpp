// Bitwise equality of calls by the automatic path.
#include "gpu/on_device.h"

namespace lattn::test {
namespace {

class Bitwise : public OnDevice {
protected:
    Case batch_case() const {
        Case c = target_case({3, 2, 4, 150, 72, 200, 64, true});
        c.rates = {0.01, 0.3};
        return c;
    }
};

TEST_P(Bitwise, TheSameCallTwice) {
    Problem first(batch_case()), second(batch_case());
    for (Problem* problem : {&first, &second}) {
        Mirror mirror(device(), *problem);
        mirror.forward(problem->forward_params());
        mirror.backward(problem->backward_params());
        mirror.fetch();
    }
    for (std::size_t i = 0; i < first.results().size(); ++i)
        EXPECT_EQ(first.results()[i]->bytes(), second.results()[i]->bytes()) << "result " << i;
}

TEST_P(Bitwise, AloneAndInABatch) {
    Problem together(batch_case()), alone(batch_case());
    Mirror mirror(device(), together), mirror_alone(device(), alone);
    mirror.forward(together.forward_params());
    mirror.backward(together.backward_params());
    for (int64_t sequence = 0; sequence < 3; ++sequence) {
        mirror_alone.forward(sequence_of(alone.forward_params(), sequence));
        mirror_alone.backward(sequence_of(alone.backward_params(), sequence));
    }
    mirror.fetch();
    mirror_alone.fetch();
    // The rate's gradient is a sum over the batch.
    for (std::size_t i = 0; i + 1 < together.results().size(); ++i)
        EXPECT_EQ(together.results()[i]->bytes(), alone.results()[i]->bytes()) << "result " << i;
}

INSTANTIATE_TEST_SUITE_P(Devices, Bitwise, ::testing::ValuesIn(operator_targets()), target_name);

} // namespace
} // namespace lattn::test
