#include "cpu/scan.h"

namespace lattn::cpu {
namespace {

class Allocator {
public:
    explicit Allocator(std::size_t element_bytes) : line_(static_cast<int64_t>(kAlignment / element_bytes)) {}

    int64_t round_up(int64_t elements) const { return (elements + line_ - 1) / line_ * line_; }

    int64_t leading_dimension(int64_t elements) const { return ((elements + line_ - 1) / line_ | 1) * line_; }

    int64_t take(int64_t elements) {
        const int64_t offset = next_;
        next_ += round_up(elements);
        return offset;
    }

    int64_t used() const { return next_; }

private:
    int64_t line_;
    int64_t next_ = 0;
};

} // namespace

ScanLayout layout_of(const Scan& scan, std::size_t element_bytes) {
    Allocator shared(element_bytes);
    const bool tangent = scan.grad_decay_rate != nullptr;
    ScanLayout layout = {};
    layout.ld_rows = shared.leading_dimension(scan.rows);
    layout.ld_columns = shared.leading_dimension(scan.columns);
    layout.ld_chunk = shared.leading_dimension(kChunk);

    layout.x = shared.take(kChunk * layout.ld_rows);
    layout.y = shared.take(kChunk * layout.ld_rows);
    layout.y_transposed = shared.take(shared.round_up(scan.rows) * layout.ld_chunk);
    layout.z = shared.take(kChunk * layout.ld_columns);
    layout.z_weighted = shared.take(kChunk * layout.ld_columns);
    layout.scores = shared.take(kChunk * layout.ld_chunk);
    layout.output = shared.take(kChunk * layout.ld_columns);
    if (tangent) {
        layout.partner = shared.take(kChunk * layout.ld_columns);
        layout.z_transposed = shared.take(shared.round_up(scan.columns) * layout.ld_chunk);
        layout.partner_scores = shared.take(kChunk * layout.ld_chunk);
    }
    layout.members = shared.used();

    Allocator member(element_bytes);
    layout.state = member.take(scan.rows * layout.ld_columns);
    if (tangent) layout.state_tangent = member.take(scan.rows * layout.ld_columns);
    layout.decay = member.take(kChunk + 1);
    layout.score_weights = member.take(2 * kChunk);
    layout.member_elements = member.used();
    layout.elements = layout.members + scan.members * layout.member_elements;
    return layout;
}

} // namespace lattn::cpu
