//! One answer.

use pelton_simulation::cases::each;
use pelton_simulation::spec::KindName;

#[test]
fn tumbling() {
    each("tumbling", &[KindName::Tumbling], 100);
}
