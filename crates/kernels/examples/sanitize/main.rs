//! Launches every kernel on small shapes, a group of them a process: what compute-sanitizer is run over
//! (`bench/sanitize.sh`). It judges no result; that is the tests' work.
//!
//! `sanitize` lists the groups, `sanitize GROUP...` launches them. Ends with 3 where this card or build has none
//! of a group's kernels.
#![expect(clippy::print_stdout, reason = "its lines are read by a script")]

mod attention;
mod bench;
mod decode;
mod train;

use std::process::ExitCode;

use bench::{Bench, Fault};

/// Launches its kernels.
type Group = fn(&mut Bench);

/// The groups: kernels that share a limit of time.
const GROUPS: &[(&str, Group)] = &[
    ("nf4", train::nf4),
    ("norm", train::norm),
    ("elementwise", train::elementwise),
    ("lora", train::lora),
    ("loss", train::loss),
    ("adamw", train::adamw),
    ("decode_rows", decode::rows),
    ("decode", decode::finish),
    ("decode_attention", decode::attention),
    ("attention_f32", attention::f32),
    ("attention_hd64", attention::hd64),
    ("attention_hd128", attention::hd128),
    ("attention_hd256", attention::hd256),
    ("attention_sm90", attention::sm90),
];

fn main() -> ExitCode {
    let mut asked = std::env::args().skip(1).peekable();
    if asked.peek().is_none() {
        for (name, _) in GROUPS {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    }
    for name in asked {
        let Some((_, group)) = GROUPS.iter().find(|(known, _)| *known == name) else {
            println!("no group `{name}`: without arguments the groups are listed");
            return ExitCode::from(2);
        };
        let launched = Bench::open().and_then(|mut bench| {
            group(&mut bench);
            bench.end()
        });
        match launched {
            Ok(launches) => println!("{name}: {launches} launches ended"),
            Err(fault) => {
                println!("{name}: {fault}");
                return ExitCode::from(match fault {
                    Fault::Absent(_) => 3,
                    Fault::Failed(_) => 1,
                });
            }
        }
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kernel_is_launched() {
        let mut bench = Bench::paper();
        for (_, group) in GROUPS {
            group(&mut bench);
        }
        let there: BTreeSet<&str> = kernels::symbols().collect();
        assert_eq!(bench.launched(), &there);
    }
}
