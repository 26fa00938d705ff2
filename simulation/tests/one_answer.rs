//! One answer.

use pelton_simulation::cases::each;
use pelton_simulation::spec::KindName;

#[test]
fn tumbling() {
    each("tumbling", &[KindName::Tumbling], 100);
}

#[test]
fn running_aggregates() {
    each("running_aggregates", &[KindName::Running], 40);
}

#[test]
fn in_event_time_order() {
    each("in_event_time_order", &[KindName::Ordered], 60);
}

#[test]
fn session() {
    each("session", &[KindName::Session], 100);
}

#[test]
fn sliding() {
    each("sliding", &[KindName::Sliding], 80);
}

#[test]
fn cumulate() {
    each("cumulate", &[KindName::Cumulate], 60);
}

#[test]
fn process_functions() {
    each("process_functions", &[KindName::Process], 60);
}

#[test]
fn joins_patterns_and_others() {
    each("joins_patterns_and_others", &[KindName::Operator], 200);
}

#[test]
fn tables_and_what_applies_their_changes() {
    each(
        "tables_and_what_applies_their_changes",
        &[KindName::Changes],
        150,
    );
}
