//! Some rows answered together behind one prefix: their prompts read in one pass, then step after step until
//! each has ended.
//!
//! A few steps run before the host looks at what they chose; rows that have ended run along until enough of
//! them have, and then the rest goes on as a smaller batch.

use kernels::{Grid, Kernel, decode, params};

use super::decoder::{self, Contexts};
use super::exec::Exec;
use super::generate::{Asked, Tuned};
use super::graph::Graph;
use super::head;
use super::memory::Rows;
use super::pass::{Pass, Tokens};
use super::step::{State, Step};
use crate::error::{Error, Result};

/// Steps between two looks of the host.
const AHEAD: usize = 8;
/// What the kernel writes where it met NaN.
const SPOILED: u32 = u32::MAX;

/// A row being answered.
struct Row {
    prompt: usize,
    slot: usize,
    /// Prompt ids behind the prefix.
    own: usize,
}

pub(super) struct Portion<'a> {
    tuned: &'a Tuned<'a>,
    state: State,
    pub(super) step: Step<'a>,
    rows: Vec<Row>,
    /// Ids chosen for every row so far.
    picked: usize,
}

/// What becomes of an answer: its prompt's place and its ids; false ends everything.
pub(super) type Hear<'h> = dyn FnMut(usize, &[u32]) -> bool + 'h;

impl<'a> Portion<'a> {
    /// Reads the prompts behind the prefix and picks each row's first id.
    pub(super) fn read(
        exec: &mut Exec<'_>,
        tuned: &'a Tuned<'a>,
        asked: &Asked<'_>,
        members: &[usize],
        prefix: usize,
        contexts: Option<&'a Contexts>,
    ) -> Self {
        let own: Vec<&[u32]> = members
            .iter()
            .map(|m| &asked.prompts[*m][prefix..])
            .collect();
        let longest = own.iter().map(|ids| ids.len()).max().unwrap_or(0);
        let count = members.len();
        let state = State::take(exec, tuned, count, longest + asked.max_new);
        let words =
            |f: &dyn Fn(usize) -> usize| -> Vec<u32> { (0..count).map(|i| f(i) as u32).collect() };
        // The pick below makes them one longer.
        let lens = words(&|i| own[i].len() - 1);
        exec.put(state.lens, &lens);
        exec.put(state.slots, &words(&|i| i));
        let mark = exec.arena.mark();
        let logits = read(exec, tuned, &own, prefix, contexts, Some(&state));
        state.pick(exec, logits);
        exec.arena.release(mark);
        let step = Step::take(exec, tuned, contexts, prefix, &state, count);
        let rows = members.iter().enumerate().map(|(slot, prompt)| Row {
            prompt: *prompt,
            slot,
            own: own[slot].len(),
        });
        Self {
            tuned,
            rows: rows.collect(),
            state,
            step,
            picked: 1,
        }
    }

    /// Runs to the end. Where there is no card, one step is counted.
    pub(super) fn finish(
        mut self,
        exec: &mut Exec<'_>,
        asked: &Asked<'_>,
        hear: &mut Hear<'_>,
    ) -> Result<()> {
        let Some(device) = exec.device else {
            self.step.run(exec, &self.state, self.rows.len());
            return Ok(());
        };
        let mut batch = self.rows.len();
        let mut graph: Option<Graph> = None;
        let capacity = self.state.capacity;
        let mut history = vec![0u32; self.state.history.bytes / 4];
        loop {
            exec.check()?;
            device.download(self.state.history, &mut history)?;
            self.hear(&history, asked, hear)?;
            if self.rows.is_empty() {
                return Ok(());
            }
            if self.rows.len().div_ceil(decode::GROUP) < batch.div_ceil(decode::GROUP) {
                batch = self.rows.len();
                graph = None;
                self.gather(exec, &history, capacity);
            }
            let steps = AHEAD.min(asked.max_new - self.picked);
            for _ in 0..steps {
                // The first step of a batch runs plainly: plans of products are made then.
                if let Some(graph) = &graph {
                    exec.go(|d| graph.launch(d));
                    continue;
                }
                self.step.run(exec, &self.state, batch);
                exec.check()?;
                if self.tuned.how.captured && !device.profile.active() {
                    graph = Some(Graph::capture(device, || {
                        self.step.run(exec, &self.state, batch);
                        exec.check()
                    })?);
                }
            }
            self.picked += steps;
        }
    }

    /// Tells of the rows that have ended and lets them go.
    fn hear(&mut self, history: &[u32], asked: &Asked<'_>, hear: &mut Hear<'_>) -> Result<()> {
        let (capacity, picked) = (self.state.capacity, self.picked);
        let mut open = Vec::with_capacity(self.rows.len());
        for row in std::mem::take(&mut self.rows) {
            let from = row.slot * capacity + row.own - 1;
            let ids = &history[from..from + picked];
            let end = ids.iter().position(|id| asked.stop.contains(id));
            let answer = &ids[..end.unwrap_or(picked)];
            if let Some(step) = answer.iter().position(|id| *id == SPOILED) {
                return Err(Error::NonFinite {
                    step: step as u64,
                    rows: vec![format!("prompt {}", row.prompt)],
                });
            }
            if end.is_none() && picked < asked.max_new {
                open.push(row);
            } else if !hear(row.prompt, answer) {
                return Err(Error::Cancelled);
            }
        }
        self.rows = open;
        Ok(())
    }

    /// Makes the open rows the first of the batch; their caches stay where they are.
    fn gather(&self, exec: &mut Exec<'_>, history: &[u32], capacity: usize) {
        let cached = |row: &Row| row.own + self.picked - 1;
        let words = |f: &dyn Fn(&Row) -> u32| -> Vec<u32> { self.rows.iter().map(f).collect() };
        exec.put(
            self.state.ids,
            &words(&|row| history[row.slot * capacity + cached(row) - 1]),
        );
        exec.put(self.state.lens, &words(&|row| cached(row) as u32));
        exec.put(self.state.slots, &words(&|row| row.slot as u32));
    }

    /// Reads these ids, one a row, in place of the chosen ones.
    pub(super) fn feed(&self, exec: &mut Exec<'_>, ids: &[u32]) {
        exec.put(self.state.ids, ids);
        self.step.run(exec, &self.state, ids.len());
    }
}

/// Reads ids behind a prefix, one row after the other, fills the caches if there are any, and gives the f32
/// logits after each row's last id.
pub(super) fn read(
    exec: &mut Exec<'_>,
    tuned: &Tuned<'_>,
    own: &[&[u32]],
    prefix: usize,
    contexts: Option<&Contexts>,
    state: Option<&State>,
) -> Rows {
    let base = tuned.base;
    let tokens = Tokens::new(&[], prefix, own);
    let last: Vec<u32> = own
        .iter()
        .scan(0, |end, ids| {
            *end += ids.len() as u32;
            Some(*end - 1)
        })
        .collect();
    let last = exec.upload(&last);
    let capacity = state.map_or(0, |s| s.capacity);
    let places: Vec<u32> = own
        .iter()
        .enumerate()
        .flat_map(|(slot, ids)| (0..ids.len()).map(move |i| (slot * capacity + i) as u32))
        .collect();
    let places = exec.upload(&places);
    let pass = Pass::upload(exec, &tokens, 0.0);
    let run = tuned.run(exec, &pass);
    let (query, kv) = (base.config.query_width(), base.config.kv_width());
    let hidden = decoder::forward_each(exec, &run, contexts, &mut |exec, layer, qkv| {
        let Some(state) = state else { return };
        let rows = qkv.columns(query, 2 * kv);
        let p = params::CacheFill {
            rows: rows.at,
            places: places.at,
            cache: state.caches[layer].at,
            width: rows.cols as u32,
            stride: rows.stride as u32,
        };
        exec.launch(Kernel::CacheFill, Grid::row(rows.rows, 128), &p);
    });
    let normed = (
        exec.rows(own.len(), base.config.hidden),
        exec.floats(own.len()),
    );
    let logits = exec
        .arena
        .rows(own.len(), base.config.vocab, kernels::Element::F32);
    head::logits(exec, base, hidden, Some(last), normed, logits);
    logits
}
