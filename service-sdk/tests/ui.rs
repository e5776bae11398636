//! What the compiler says to a contract that can't be one.

#[test]
fn contracts_that_can_not_be_are_refused_with_a_reason() {
    trybuild::TestCases::new().compile_fail("macros/ui/*.rs");
}
