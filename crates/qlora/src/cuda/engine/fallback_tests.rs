//! Which plan follows when a card gives less than was planned: on a card on paper, whose memory can be refused.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::config::ModelConfig;
use crate::cuda::{CardModel, Element, Precision, exec};
use crate::nn::lora::LoraConfig;
use crate::nn::model::Quantization;
use crate::nn::model::tests::tiny_config;
use crate::train::{Example, Keeping, LossMean};

const ROWS: usize = 6;

fn rows() -> Vec<Example> {
    (0..ROWS)
        .map(|row| Example {
            id: row.to_string(),
            ids: vec![row as u32; 200],
            labels: (0..200).map(|at| at > 0).collect(),
            weight: 1.0,
        })
        .collect()
}

fn engine(refuse_above: Option<usize>) -> CudaEngine {
    let config = ModelConfig {
        vocab: 64,
        hidden: 64,
        intermediate: 128,
        head_dim: 16,
        attention_scale: ModelConfig::plain_scale(16),
        ..tiny_config()
    };
    let lora = LoraConfig::default();
    let adapter = Adapter::zeros(&config, &lora).unwrap();
    let precision = Precision {
        element: Element::F32,
        quantization: Quantization::None,
    };
    let device = Device::on_paper(CardModel::of_gib(8.0).info());
    let base = Base::sketch(device, &config, precision, 256).unwrap();
    let options = Options {
        refuse_above,
        ..Options::default()
    };
    CudaEngine::new(base, &adapter, options).unwrap()
}

fn with_work<T>(go: impl FnOnce(Work<'_>) -> T) -> T {
    let all = Group {
        prefix: 0,
        prefix_mask: 0,
        members: (0..ROWS).collect(),
    };
    with_groups(&[all], go)
}

fn with_groups<T>(groups: &[Group], go: impl FnOnce(Work<'_>) -> T) -> T {
    let rows = rows();
    go(Work {
        examples: &rows,
        groups,
        masks: None,
        mean: LossMean::Token,
        over: BatchLoss::count(LossMean::Token, &rows, groups).over,
        micro_batch: None,
        cancel: &AtomicBool::new(false),
        ranks: None,
    })
}

#[test]
fn a_full_card_is_answered_by_the_next_smaller_plan_of_the_same_rows() {
    with_work(|work| {
        let whole = engine(None).step_plan(work).unwrap();
        assert_eq!((whole.keeping, whole.rows), (Keeping::Everything, ROWS));
        let mut last = whole;
        let mut seen = vec![(whole.keeping, whole.rows)];
        for _ in 0..4 {
            let mut full = engine(Some(last.bytes as usize - 1));
            let plans = full.settle(work, true).unwrap();
            let members: Vec<usize> = plans[0].micro.concat();
            assert_eq!(members, (0..ROWS).collect::<Vec<_>>());
            let now = full.step_plan(work).unwrap();
            assert!(now.bytes < last.bytes);
            assert_eq!(full.refused().last(), Some(&last.bytes));
            assert!(full.refused().is_empty());
            // A run that goes on elsewhere plans as this one did.
            let mut resumed = engine(None);
            resumed.stay_below(last.bytes as usize);
            assert_eq!(resumed.step_plan(work).unwrap(), now);
            seen.push((now.keeping, now.rows));
            last = now;
        }
        assert_eq!(seen[1], (Keeping::LayerInputs, ROWS));
        assert!(seen.iter().any(|(_, rows)| *rows < ROWS), "{seen:?}");
    });
}

#[test]
fn a_card_too_full_for_one_row_is_told_with_what_it_refused() {
    with_work(|work| {
        let error = engine(Some(1 << 20)).settle(work, true).unwrap_err();
        let said = error.to_string();
        assert!(
            said.starts_with("one row of `0` does not fit on a card, which refused"),
            "{said}"
        );
        assert_eq!(error.code(), "qlora::device");
    });
}

/// It has no smaller plan.
#[test]
fn a_rank_without_rows_that_a_card_refuses_is_told_and_not_asked_again() {
    with_groups(&[], |work| {
        let error = engine(Some(1 << 20)).settle(work, true).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a card refuses the 32 MiB of a step without rows: there is not enough memory"
        );
        assert_eq!(error.code(), "qlora::out-of-memory");
        let mend = error.mend().unwrap();
        assert!(mend.starts_with("end other programs"), "{mend}");
        let least = engine(Some(exec::LEAST)).settle(work, true);
        assert!(least.unwrap().is_empty());
    });
}
