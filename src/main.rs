use std::process::ExitCode;

fn main() -> ExitCode {
    horseshoe::cli::main()
}
