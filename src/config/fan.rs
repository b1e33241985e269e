//! Which cells every stage has: its own sweep's, and those of every sweep above it that no stage
//! has picked from.
//!
//! Promises: a stage that reads two stages of one sweep reads the same cell of both; one that
//! reads two sweeps has every combination; what is picked from goes on as one. Any file gives
//! cells or faults, also one with cycles (the graph names those).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::cell::Cell;
use super::fault::Fault;
use super::matrix::{self, MOST_CELLS};
use super::params::Chosen;
use super::pick::{self, Candidate, PickSpec, Wanted};
use super::pipeline::{InputSpec, Reference};
use super::stage::Draft;
use super::template::Scope;

/// Parameters whose value only a run knows, with the stage that picks it.
pub(crate) type Hidden = BTreeMap<String, String>;

/// What one entry under `stages:` comes to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fan {
    /// Its cells; one that binds nothing outside every sweep.
    pub(crate) cells: Vec<Cell>,
    /// Parameters that were swept and picked above it.
    pub(crate) hidden: Hidden,
    /// Of a stage with `pick`: the cells of what it reads.
    alternatives: Vec<Cell>,
}

/// The cells of all stages, in file order.
pub(crate) struct Fans<'a> {
    drafts: &'a [Draft<'a>],
    index: BTreeMap<&'a str, usize>,
    picks: Vec<Option<Wanted<'a>>>,
    own: Vec<Vec<Cell>>,
    source: &'a str,
    chosen: &'a Chosen,
    found: Vec<Option<Fan>>,
    /// Whether a matrix or a pick is at fault: what follows from that is not told.
    broken: bool,
}

/// Why a stage's cells are not known yet.
enum Stop {
    /// Those of this stage come first.
    Needs(usize),
    TooMany,
}

impl<'a> Fans<'a> {
    /// Follows every sweep; `None` where the file has none.
    pub(crate) fn follow(
        drafts: &'a [Draft<'a>],
        source: &'a str,
        chosen: &'a Chosen,
        faults: &mut Vec<Fault>,
    ) -> Option<Self> {
        let sweeps = |draft: &Draft<'_>| draft.get("matrix").or(draft.get("pick")).is_some();
        if !drafts.iter().any(sweeps) {
            return None;
        }
        let mut fans = Self {
            index: drafts
                .iter()
                .enumerate()
                .map(|(at, draft)| (draft.id, at))
                .collect(),
            picks: Vec::new(),
            own: Vec::new(),
            found: vec![None; drafts.len()],
            broken: false,
            drafts,
            source,
            chosen,
        };
        let before = faults.len();
        fans.read(faults);
        fans.broken = faults.len() > before;
        fans.solve(faults);
        Some(fans)
    }

    /// Reads `matrix` and `pick` of every stage.
    fn read(&mut self, faults: &mut Vec<Fault>) {
        let none = Hidden::new();
        let scope = self.scope(&self.chosen.params, &none);
        let names: Vec<&str> = self.drafts.iter().map(|draft| draft.id).collect();
        let mut own = Vec::new();
        let mut picks = Vec::new();
        for draft in self.drafts {
            let entry = draft.get("matrix").filter(|_| draft.here);
            own.push(matrix::cells(
                draft.id,
                entry,
                &self.chosen.fixed,
                &scope,
                faults,
            ));
            let entry = draft.get("pick").filter(|_| draft.here);
            picks.push(entry.and_then(|entry| pick::wanted(entry, &names, &scope, faults)));
        }
        let measured: Vec<_> = self.drafts.iter().map(|d| d.measured(&scope)).collect();
        for wanted in picks.iter().flatten() {
            pick::honest(wanted, &measured, faults);
        }
        self.own = own;
        self.picks = picks;
    }

    fn scope<'s>(&'s self, params: &'s BTreeMap<String, Value>, hidden: &'s Hidden) -> Scope<'s> {
        Scope {
            source: self.source,
            params,
            elsewhere: &self.chosen.elsewhere,
            hidden,
            profile: &self.chosen.profile,
        }
    }

    /// Every stage after what it reads, without recursion: a chain may be very long.
    fn solve(&mut self, faults: &mut Vec<Fault>) {
        let mut inside = vec![false; self.drafts.len()];
        for first in 0..self.drafts.len() {
            let mut stack = vec![first];
            while let Some(&at) = stack.last() {
                if self.found[at].is_some() {
                    stack.pop();
                    continue;
                }
                inside[at] = true;
                let fan = match self.attempt(at, &inside) {
                    Err(Stop::Needs(above)) => {
                        stack.push(above);
                        continue;
                    }
                    Err(Stop::TooMany) => {
                        let draft = &self.drafts[at];
                        faults.push(matrix::too_many(draft.id, draft.span));
                        Fan::default()
                    }
                    Ok(fan) => fan,
                };
                if fan.cells.is_empty() && !faults.iter().any(|f| f.code == "config::too-large") {
                    let draft = &self.drafts[at];
                    let message =
                        format!("no cell of what `{}` reads goes with the others", draft.id);
                    let fault = Fault::at(draft.span, "config::no-cells", message);
                    faults
                        .push(fault.mend("let the sweeps above it share values, or pick from one"));
                }
                inside[at] = false;
                self.found[at] = Some(fan);
                stack.pop();
            }
        }
    }

    fn attempt(&self, at: usize, inside: &[bool]) -> Result<Fan, Stop> {
        let reads = |cell: &Cell| self.reads(at, cell);
        let own = &self.own[at];
        let mut fan = Fan::default();
        let axes: BTreeSet<&str>;
        if let Some(wanted) = &self.picks[at] {
            let with = |cell: &Cell| {
                let mut reads = reads(cell);
                reads.push(wanted.stage);
                reads
            };
            fan.alternatives = self.join(vec![Cell::default()], inside, with)?;
            fan.cells.clone_from(own);
            axes = fan
                .alternatives
                .iter()
                .flat_map(Cell::iter)
                .map(|(name, _)| name)
                .collect();
        } else {
            fan.cells = self.join(own.clone(), inside, reads)?;
            axes = BTreeSet::new();
        }
        let mut hidden = Hidden::new();
        for above in self.reads(at, own.first().unwrap_or(&Cell::default())) {
            if let Some(above) = &self.found[above] {
                hidden.extend(above.hidden.clone());
            }
        }
        let id = self.drafts[at].id;
        hidden.extend(axes.iter().map(|name| ((*name).to_owned(), id.to_owned())));
        for (name, _) in fan.cells.iter().flat_map(Cell::iter) {
            hidden.remove(name);
        }
        fan.hidden = hidden;
        Ok(fan)
    }

    /// The stages that a stage reads in one of its cells.
    fn reads(&self, at: usize, cell: &Cell) -> Vec<usize> {
        let none = Hidden::new();
        let bound;
        let params = if cell.is_empty() {
            &self.chosen.params
        } else {
            bound = self.params(cell);
            &bound
        };
        let names = self.drafts[at].reads(&self.scope(params, &none));
        names
            .iter()
            .filter_map(|name| self.index.get(name.as_str()).copied())
            .collect()
    }

    /// The parameters in a cell.
    pub(crate) fn params(&self, cell: &Cell) -> BTreeMap<String, Value> {
        let mut params = self.chosen.params.clone();
        params.extend(
            cell.iter()
                .map(|(name, value)| (name.to_owned(), value.clone())),
        );
        params
    }

    /// `start` with what the stages read there bind, in every combination that agrees.
    fn join(
        &self,
        mut start: Vec<Cell>,
        inside: &[bool],
        reads: impl Fn(&Cell) -> Vec<usize>,
    ) -> Result<Vec<Cell>, Stop> {
        start.reverse();
        let mut found: Vec<Cell> = Vec::new();
        while let Some(cell) = start.pop() {
            let mut split = None;
            for above in reads(&cell) {
                let cells = match &self.found[above] {
                    Some(fan) => &fan.cells,
                    // A cycle: the graph says so.
                    None if inside[above] => continue,
                    None => return Err(Stop::Needs(above)),
                };
                if cells.iter().any(|theirs| cell.holds(theirs)) {
                    continue;
                }
                let agree = cells.iter().filter(|theirs| theirs.agrees(&cell));
                split = Some(agree.map(|theirs| cell.joined(theirs)).collect::<Vec<_>>());
                break;
            }
            match split {
                Some(cells) => start.extend(cells.into_iter().rev()),
                None if !found.contains(&cell) => found.push(cell),
                None => {}
            }
            if found.len() + start.len() > MOST_CELLS {
                return Err(Stop::TooMany);
            }
        }
        Ok(found)
    }

    /// What a stage comes to.
    pub(crate) fn of(&self, at: usize) -> &Fan {
        self.found[at].as_ref().expect("every stage was solved")
    }

    /// The inputs as they are in a cell: each names the cell that it reads.
    pub(crate) fn inputs(&self, inputs: &[InputSpec], cell: &Cell) -> Vec<InputSpec> {
        let concrete = |reference: &Reference| match reference {
            Reference::Product { stage, product } => Reference::Product {
                stage: self.cell_of(stage, cell),
                product: product.clone(),
            },
            path @ Reference::Path(_) => path.clone(),
        };
        let input = |input: &InputSpec| InputSpec {
            name: input.name.clone(),
            span: input.span.clone(),
            references: input.references.iter().map(concrete).collect(),
        };
        inputs.iter().map(input).collect()
    }

    /// The name of the stage's cell that goes with `cell`.
    fn cell_of(&self, stage: &str, cell: &Cell) -> String {
        let Some(&at) = self.index.get(stage) else {
            return stage.to_owned();
        };
        let cells = &self.of(at).cells;
        let held = cells.iter().filter(|theirs| cell.holds(theirs));
        let best = held.max_by_key(|theirs| theirs.iter().count());
        // None fits where a cycle was cut: any closes it.
        best.or(cells.first())
            .map_or_else(|| stage.to_owned(), |theirs| theirs.name(stage))
    }

    /// What a stage with `pick` can read, given what it reads in file terms.
    pub(crate) fn pick(
        &self,
        at: usize,
        cell: &Cell,
        inputs: &[InputSpec],
        faults: &mut Vec<Fault>,
    ) -> Option<PickSpec> {
        let wanted = self.picks[at].as_ref()?;
        let measured = self.drafts[wanted.stage].id;
        let span = &wanted.entry.value.span;
        let candidate = |alternative: &Cell| Candidate {
            measured: self.cell_of(measured, alternative),
            inputs: self.inputs(inputs, &alternative.joined(cell)),
        };
        let alternatives = self.of(at).alternatives.iter();
        let mut candidates: Vec<Candidate> = alternatives.map(candidate).collect();
        candidates.sort_by(|a, b| a.measured.cmp(&b.measured));
        let fault = if self.of(wanted.stage).cells.iter().all(Cell::is_empty) {
            let message = format!("`{measured}` is in no sweep, so there is nothing to pick from");
            Fault::at(span, "config::bad-pick", message)
                .mend("measure a stage that a `matrix` above it fans out, or take `pick` out")
        } else if let Some(pair) = candidates
            .windows(2)
            .find(|p| p[0].measured == p[1].measured)
        {
            let message = format!(
                "what is read varies where `{measured}` does not: `{}` measures several cells",
                pair[0].measured
            );
            Fault::at(span, "config::bad-pick", message)
                .mend("let the measured stage read what is picked")
        } else {
            return Some(PickSpec {
                largest: wanted.largest,
                stage: measured.to_owned(),
                metric: wanted.metric.clone(),
                span: span.clone(),
                candidates,
            });
        };
        if !self.broken {
            faults.push(fault);
        }
        None
    }
}
