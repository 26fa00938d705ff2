//! `pelton-bench`: see `pelton-bench --help`.

use pelton_bench::alloc_count::CountingAllocator;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn main() -> ExitCode {
    pelton_bench::cli::main()
}
