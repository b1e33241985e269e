//! Greedy generation in batches: what all prompts start with is computed once, keys and values are
//! cached, and finished rows leave the batch.
//!
//! The most likely id wins; on a tie the lowest one. It knows ids; text and templates are the caller's.

use crate::error::{Error, Result};
use crate::nn::adapter::Adapter;
use crate::nn::decoder::{self, Keep};
use crate::nn::model::Model;
use crate::nn::pass::{Pass, Rows, whole};
use crate::nn::pool::Pool;
use crate::nn::ropes::Ropes;
use crate::nn::{head, layer};
use crate::ops::attended::{Context, Query};
use crate::ops::attention;
use crate::tensor::Matrix;
use crate::train::{common_prefix, group_by_prefix};

/// Rows answered at a time.
const BATCH: usize = 128;
/// Prompt ids (beyond the shared prefix) read at a time.
const PROMPT_TOKENS: usize = 4096;

/// Answers prompts with a model, with or without an adapter.
pub struct Generator<'m> {
    model: &'m Model,
    adapter: Option<&'m Adapter>,
}

/// The keys and values of one row in one layer: those of its prompt behind the shared prefix, then one
/// more for each generated id.
struct RowCache {
    /// Rows of keys, then values; the capacity is fixed when the row starts.
    data: Vec<f32>,
    len: usize,
}

/// A row being answered.
struct Row {
    prompt: usize,
    /// Per layer.
    caches: Vec<RowCache>,
    /// Position of the next id.
    position: usize,
    next: u32,
    answer: Vec<u32>,
}

impl<'m> Generator<'m> {
    /// A generator over the base alone, or with `adapter` on it.
    pub fn new(model: &'m mut Model, adapter: Option<&'m Adapter>) -> Result<Self> {
        if let Some(adapter) = adapter {
            model.attach(adapter)?;
        }
        Ok(Self { model, adapter })
    }

    /// The same for an adapter that is attached already.
    pub(crate) fn attached(model: &'m Model, adapter: Option<&'m Adapter>) -> Self {
        Self { model, adapter }
    }

    /// Up to `max_new` ids after each prompt, ending before the first id of `stop`.
    pub fn generate(
        &self,
        prompts: &[Vec<u32>],
        max_new: usize,
        stop: &[u32],
    ) -> Result<Vec<Vec<u32>>> {
        self.generate_each(prompts, max_new, stop, &mut |_, _| true)
    }

    /// The same; `done` hears each answer as it is finished, with its prompt's place, and ends everything
    /// by returning false ([`Error::Cancelled`]).
    pub fn generate_each(
        &self,
        prompts: &[Vec<u32>],
        max_new: usize,
        stop: &[u32],
        done: &mut dyn FnMut(usize, &[u32]) -> bool,
    ) -> Result<Vec<Vec<u32>>> {
        check(self.model.config().vocab, prompts)?;
        let mut answers = vec![Vec::new(); prompts.len()];
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let rope = Ropes::new(self.model.config(), longest + max_new);
        // The last id of a prompt must be read by the row itself: its hidden state predicts the answer.
        let starts: Vec<&[u32]> = prompts.iter().map(|p| &p[..p.len() - 1]).collect();
        for (prefix, members) in group_by_prefix(&starts) {
            let mut batch = Batch {
                generator: self,
                prompts,
                rope: &rope,
                prefix,
                max_new,
                contexts: None,
                pool: Pool::default(),
            };
            batch.read_prefix(&members);
            for members in batch.portions(&members) {
                batch.answer(&members, stop, &mut |place, ids| {
                    answers[place] = ids.to_vec();
                    done(place, ids)
                })?;
            }
        }
        Ok(answers)
    }

    /// Logits after each prompt, one row each: for checks against other engines.
    pub fn next_logits(&self, prompts: &[Vec<u32>]) -> Result<Matrix> {
        check(self.model.config().vocab, prompts)?;
        let rows = Rows::new(prompts.iter().map(Vec::len), 0);
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let rope = Ropes::new(self.model.config(), longest);
        let pass = Pass {
            model: self.model,
            adapter: self.adapter,
            rope: &rope,
            rows: &rows,
            dropout: None,
        };
        let mut pool = Pool::default();
        let ids: Vec<u32> = prompts.concat();
        let x = decoder::embed(self.model, ids.into_iter(), &mut pool);
        let (_, hidden) = decoder::forward(&pass, x, None, Keep::Nothing, &mut pool);
        let last: Vec<usize> = rows.spans().iter().map(|s| s.end - 1).collect();
        Ok(head::logits(self.model, &hidden, &last, &mut pool))
    }
}

/// Refuses prompts that are empty or hold ids the model does not have.
pub(crate) fn check(vocab: usize, prompts: &[Vec<u32>]) -> Result<()> {
    let refuse = |what: String, mend: &str| {
        Err(Error::Config {
            what,
            mend: mend.to_owned(),
        })
    };
    for (place, prompt) in prompts.iter().enumerate() {
        if prompt.is_empty() {
            return refuse(format!("prompt {place} is empty"), "give at least one id");
        }
        if let Some(id) = prompt.iter().find(|id| **id as usize >= vocab) {
            let what = format!("prompt {place} holds id `{id}`, and the model has {vocab}");
            return refuse(what, "encode it with the model's own tokenizer");
        }
    }
    Ok(())
}

/// Prompts that share a prefix.
struct Batch<'b> {
    generator: &'b Generator<'b>,
    prompts: &'b [Vec<u32>],
    rope: &'b Ropes,
    prefix: usize,
    max_new: usize,
    /// Keys and values of the prefix, per layer.
    contexts: Option<Vec<Matrix>>,
    pool: Pool,
}

impl Batch<'_> {
    fn read_prefix(&mut self, members: &[usize]) {
        if self.prefix == 0 {
            return;
        }
        let ids = &self.prompts[members[0]][..self.prefix];
        debug_assert!(
            members
                .iter()
                .all(|m| common_prefix(ids, &self.prompts[*m]) == self.prefix)
        );
        let rows = Rows::new([self.prefix], 0);
        let pass = self.generator.pass(&rows, self.rope);
        let x = decoder::embed(self.generator.model, ids.iter().copied(), &mut self.pool);
        let (_, contexts) = decoder::forward_prefix(&pass, x, Keep::Nothing, &mut self.pool);
        self.contexts = Some(contexts);
    }

    /// Cuts a group so that neither rows nor prompt ids grow too many.
    fn portions(&self, members: &[usize]) -> Vec<Vec<usize>> {
        let mut portions: Vec<Vec<usize>> = Vec::new();
        let mut tokens = 0;
        for member in members {
            let len = self.prompts[*member].len() - self.prefix;
            match portions.last_mut() {
                Some(last) if last.len() < BATCH && tokens + len <= PROMPT_TOKENS => {
                    last.push(*member);
                    tokens += len;
                }
                _ => {
                    portions.push(vec![*member]);
                    tokens = len;
                }
            }
        }
        portions
    }

    fn answer(
        &mut self,
        members: &[usize],
        stop: &[u32],
        done: &mut dyn FnMut(usize, &[u32]) -> bool,
    ) -> Result<()> {
        if self.max_new == 0 {
            return Ok(());
        }
        let mut rows = self.read_prompts(members)?;
        loop {
            let mut open = Vec::with_capacity(rows.len());
            for mut row in rows {
                let ended = stop.contains(&row.next);
                if !ended {
                    row.answer.push(row.next);
                }
                if !ended && row.answer.len() < self.max_new {
                    open.push(row);
                } else if !done(row.prompt, &row.answer) {
                    return Err(Error::Cancelled);
                }
            }
            if open.is_empty() {
                return Ok(());
            }
            rows = open;
            self.extend(&mut rows)?;
        }
    }

    /// Reads the prompts behind the prefix and picks each row's first id.
    fn read_prompts(&mut self, members: &[usize]) -> Result<Vec<Row>> {
        let own = |m: &usize| &self.prompts[*m][self.prefix..];
        let spans = Rows::new(members.iter().map(|m| own(m).len()), self.prefix);
        let model = self.generator.model;
        let layers = model.layers.len();
        let mut rows: Vec<Row> = members
            .iter()
            .map(|m| Row {
                prompt: *m,
                caches: Vec::with_capacity(layers),
                position: self.prompts[*m].len(),
                next: 0,
                answer: Vec::new(),
            })
            .collect();
        let ids: Vec<u32> = members.iter().flat_map(own).copied().collect();
        let pass = self.generator.pass(&spans, self.rope);
        let mut x = decoder::embed(model, ids.into_iter(), &mut self.pool);
        for index in 0..layers {
            let projected = layer::project(&pass, index, &x, &mut self.pool);
            for (row, span) in rows.iter_mut().zip(spans.spans()) {
                let capacity = span.len() + self.max_new;
                row.caches.push(RowCache::new(
                    &projected.qkv,
                    span.clone(),
                    model.config().query_width(),
                    capacity,
                ));
            }
            let mut attended = layer::attended(&pass, index, x.rows(), &mut self.pool);
            let context = self.contexts.as_ref().map(|c| &c[index]);
            let queries = pass.queries(&projected.qkv, context);
            attention::forward(model.heads(index), &projected.qkv, &queries, &mut attended);
            projected.give_back(&mut self.pool);
            x = layer::finish_and_close(&pass, index, x, attended, &mut self.pool);
        }
        let last: Vec<usize> = spans.spans().iter().map(|s| s.end - 1).collect();
        self.pick(&x, &last, &mut rows)?;
        self.pool.give(x);
        Ok(rows)
    }

    /// Feeds each row's newest id and picks the one after it.
    fn extend(&mut self, rows: &mut [Row]) -> Result<()> {
        let model = self.generator.model;
        let spans = Rows::single(rows.iter().map(|r| r.position));
        let pass = self.generator.pass(&spans, self.rope);
        let kv = model.config().kv_width();
        let query_width = model.config().query_width();
        let ids: Vec<u32> = rows.iter().map(|r| r.next).collect();
        let mut x = decoder::embed(model, ids.into_iter(), &mut self.pool);
        for index in 0..model.layers.len() {
            let projected = layer::project(&pass, index, &x, &mut self.pool);
            for (i, row) in rows.iter_mut().enumerate() {
                row.caches[index].push(&projected.qkv.row(i)[query_width..]);
            }
            let prefix = self.contexts.as_ref().map(|c| whole(&c[index], kv));
            let queries: Vec<Query<'_>> = rows
                .iter()
                .enumerate()
                .map(|(i, row)| {
                    let own = row.caches[index].context(kv);
                    Query {
                        start: i,
                        len: 1,
                        first: own.len - 1,
                        prefix,
                        own,
                    }
                })
                .collect();
            let mut attended = layer::attended(&pass, index, x.rows(), &mut self.pool);
            attention::forward(model.heads(index), &projected.qkv, &queries, &mut attended);
            projected.give_back(&mut self.pool);
            x = layer::finish_and_close(&pass, index, x, attended, &mut self.pool);
        }
        for row in rows.iter_mut() {
            row.position += 1;
        }
        let last: Vec<usize> = (0..rows.len()).collect();
        self.pick(&x, &last, rows)?;
        self.pool.give(x);
        Ok(())
    }

    fn pick(&mut self, x: &Matrix, tokens: &[usize], rows: &mut [Row]) -> Result<()> {
        let logits = head::logits(self.generator.model, x, tokens, &mut self.pool);
        for (i, row) in rows.iter_mut().enumerate() {
            row.next = most_likely(logits.row(i)).ok_or_else(|| Error::NonFinite {
                step: row.answer.len() as u64,
                rows: vec![format!("prompt {}", row.prompt)],
            })?;
        }
        self.pool.give(logits);
        Ok(())
    }
}

impl Generator<'_> {
    fn pass<'p>(&'p self, rows: &'p Rows, rope: &'p Ropes) -> Pass<'p> {
        Pass {
            model: self.model,
            adapter: self.adapter,
            rope,
            rows,
            dropout: None,
        }
    }
}

/// The first of the largest logits; nothing if one is NaN.
pub(crate) fn most_likely(logits: &[f32]) -> Option<u32> {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, logit) in logits.iter().enumerate() {
        if logit.is_nan() {
            return None;
        }
        if *logit > best.1 {
            best = (id as u32, *logit);
        }
    }
    Some(best.0)
}

impl RowCache {
    fn new(
        qkv: &Matrix,
        span: std::ops::Range<usize>,
        query_width: usize,
        capacity: usize,
    ) -> Self {
        let len = span.len();
        let mut data = Vec::with_capacity(capacity * (qkv.cols() - query_width));
        for t in span {
            data.extend_from_slice(&qkv.row(t)[query_width..]);
        }
        Self { data, len }
    }

    fn push(&mut self, key_value: &[f32]) {
        self.data.extend_from_slice(key_value);
        self.len += 1;
    }

    fn context(&self, kv: usize) -> Context<'_> {
        Context {
            data: &self.data,
            stride: 2 * kv,
            key: 0,
            value: kv,
            len: self.len,
        }
    }
}

#[cfg(test)]
#[path = "generate_tests.rs"]
mod tests;
