//! Matrix products through cuBLASLt, with plans chosen once per shape and kept.
//!
//! A plan is a function of shapes alone, never of timing or of what ran before: the algorithm is asked for
//! at lengths rounded up to whole buckets, so equal runs choose alike. No plan sums parts in an order that
//! changes: split sums are forbidden, but for the adapters' narrow products, which may go through a
//! workspace and be added up in a second pass.
#![expect(unsafe_code, reason = "cuBLASLt's C interface")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::ptr;

use cudarc::cublaslt::sys;
use kernels::Element;

use super::device::{Device, full};
use super::memory::{Region, Rows};
use crate::error::{Error, Result};

/// Bytes of scratch that a product may use.
pub(super) const WORKSPACE: usize = 32 << 20;
/// Lengths of tokens that share a plan.
const BUCKET: usize = 128;

/// `out = alpha * op(a) . op(b) + beta * add`, all row-major; `op` transposes where asked.
#[derive(Clone, Copy)]
pub(super) struct Product {
    pub(super) a: Rows,
    pub(super) a_t: bool,
    pub(super) b: Rows,
    pub(super) b_t: bool,
    pub(super) out: Rows,
    pub(super) alpha: f32,
    /// Added to the product; may be `out` itself.
    pub(super) add: Option<Rows>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    mnk: [usize; 3],
    lds: [usize; 4],
    transposed: [bool; 2],
    input: Element,
    output: Element,
    add: bool,
    alignment: [u32; 4],
    split: bool,
}

struct Plan {
    desc: sys::cublasLtMatmulDesc_t,
    algo: sys::cublasLtMatmulAlgo_t,
}

/// The library and its plans.
pub(super) struct Blas {
    handle: sys::cublasLtHandle_t,
    plans: RefCell<BTreeMap<Key, Plan>>,
}

fn check(status: sys::cublasStatus_t, what: &str) -> Result<()> {
    if status == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS {
        return Ok(());
    }
    // Its handle and what it loads at a first product lie on the card; a product's workspace is ours.
    if status == sys::cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED {
        return Err(full(&format!("cuBLASLt, {what}")));
    }
    Err(Error::device(
        format!("cuBLASLt, {what}: {status:?}"),
        "report this with the shapes of the run",
    ))
}

fn kind(element: Element) -> sys::cudaDataType {
    match element {
        Element::Bf16 => sys::cudaDataType_t::CUDA_R_16BF,
        Element::F32 => sys::cudaDataType_t::CUDA_R_32F,
    }
}

/// A token count and the last one of its bucket plan alike.
fn bucket(n: usize) -> usize {
    if n <= BUCKET {
        n
    } else {
        n.next_multiple_of(BUCKET)
    }
}

fn alignment(at: u64) -> u32 {
    1 << at.trailing_zeros().min(8)
}

struct Layout(sys::cublasLtMatrixLayout_t);

impl Layout {
    /// Row-major rows seen as columns.
    fn new(element: Element, rows: usize, cols: usize, stride: usize) -> Result<Self> {
        let mut layout = ptr::null_mut();
        // SAFETY: the out-pointer is valid.
        let status = unsafe {
            sys::cublasLtMatrixLayoutCreate(
                &raw mut layout,
                kind(element),
                rows as u64,
                cols as u64,
                stride as i64,
            )
        };
        check(status, "a layout")?;
        Ok(Self(layout))
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: created by `new`, destroyed once.
        unsafe {
            let _ = sys::cublasLtMatrixLayoutDestroy(self.0);
        }
    }
}

/// The operands as cuBLASLt sees them: columns for rows, so the right factor comes first.
struct Operands {
    first: Layout,
    second: Layout,
    add: Layout,
    out: Layout,
}

impl Operands {
    fn new(p: &Product, [m, n, k]: [usize; 3]) -> Result<Self> {
        let turned =
            |t: bool, rows: usize, cols: usize| if t { (cols, rows) } else { (rows, cols) };
        let (b_rows, b_cols) = turned(p.b_t, n, k);
        let (a_rows, a_cols) = turned(p.a_t, k, m);
        let add = p.add.unwrap_or(p.out);
        Ok(Self {
            first: Layout::new(p.b.element, b_rows, b_cols, p.b.stride)?,
            second: Layout::new(p.a.element, a_rows, a_cols, p.a.stride)?,
            add: Layout::new(add.element, n, m, add.stride)?,
            out: Layout::new(p.out.element, n, m, p.out.stride)?,
        })
    }
}

impl Product {
    /// Rows and columns of the result, and the length that is summed over.
    fn mnk(&self) -> [usize; 3] {
        let (m, k) = if self.a_t {
            (self.a.cols, self.a.rows)
        } else {
            (self.a.rows, self.a.cols)
        };
        let (n, other) = if self.b_t {
            (self.b.rows, self.b.cols)
        } else {
            (self.b.cols, self.b.rows)
        };
        assert_eq!(k, other, "inner lengths of a product");
        assert_eq!(
            (self.out.rows, self.out.cols),
            (m, n),
            "the result of a product"
        );
        assert_eq!(self.a.element, self.b.element, "factors of a product");
        [m, n, k]
    }

    /// Shape and kind, for a profile.
    pub(super) fn name(&self) -> String {
        let [m, n, k] = self.mnk();
        let letter = |t: bool| if t { 't' } else { 'n' };
        format!(
            "product {m} x {n} x {k} {}{}{}",
            letter(self.a_t),
            letter(self.b_t),
            if self.add.is_some() { " +" } else { "" }
        )
    }

    fn key(&self) -> Key {
        let [m, n, k] = self.mnk();
        let add = self.add.unwrap_or(self.out);
        Key {
            // Tokens are the rows of the result, or what is summed over; the other lengths are weights'.
            mnk: if self.a_t {
                [m, n, bucket(k)]
            } else {
                [bucket(m), n, k]
            },
            lds: [self.a.stride, self.b.stride, add.stride, self.out.stride],
            transposed: [self.a_t, self.b_t],
            input: self.a.element,
            output: self.out.element,
            add: self.add.is_some(),
            alignment: [self.a.at, self.b.at, add.at, self.out.at].map(alignment),
            split: n.min(m) <= 256 || self.out.element != self.a.element,
        }
    }
}

impl Blas {
    pub(super) fn new() -> Result<Self> {
        let mut handle = ptr::null_mut();
        // SAFETY: the out-pointer is valid.
        check(unsafe { sys::cublasLtCreate(&raw mut handle) }, "starting")?;
        Ok(Self {
            handle,
            plans: RefCell::new(BTreeMap::new()),
        })
    }

    /// For a card that is not there: nothing is multiplied.
    pub(super) fn none() -> Self {
        Self {
            handle: ptr::null_mut(),
            plans: RefCell::default(),
        }
    }

    #[expect(
        clippy::unused_self,
        reason = "the library answers only where it was started"
    )]
    pub(super) fn version(&self) -> usize {
        // SAFETY: needs no state.
        unsafe { sys::cublasLtGetVersion() }
    }

    pub(super) fn run(&self, device: &Device, p: &Product, workspace: Region) -> Result<()> {
        let key = p.key();
        let mut plans = self.plans.borrow_mut();
        let plan = match plans.entry(key) {
            std::collections::btree_map::Entry::Occupied(e) => e.into_mut(),
            std::collections::btree_map::Entry::Vacant(e) => e.insert(self.plan(p, &key)?),
        };
        let operands = Operands::new(p, p.mnk())?;
        let beta = if p.add.is_some() { 1.0f32 } else { 0.0 };
        let add = p.add.unwrap_or(p.out);
        // SAFETY: all descriptors live; operands are regions of this card, as long as their layouts say
        // (checked when the rows were made).
        let status = unsafe {
            sys::cublasLtMatmul(
                self.handle,
                plan.desc,
                (&raw const p.alpha).cast::<c_void>(),
                p.b.at as *const c_void,
                operands.first.0,
                p.a.at as *const c_void,
                operands.second.0,
                (&raw const beta).cast::<c_void>(),
                add.at as *const c_void,
                operands.add.0,
                p.out.at as *mut c_void,
                operands.out.0,
                &raw const plan.algo,
                workspace.at as *mut c_void,
                workspace.bytes,
                device.stream.cast(),
            )
        };
        check(status, &format!("a product of {:?}", p.mnk()))
    }

    fn plan(&self, p: &Product, key: &Key) -> Result<Plan> {
        let operands = Operands::new(p, key.mnk)?;
        let (mut desc, mut pref) = (ptr::null_mut(), ptr::null_mut());
        // CUBLAS_OP_T and CUBLAS_OP_N.
        let turn = i32::from;
        let (first, second) = (turn(p.b_t), turn(p.a_t));
        use sys::cublasLtMatmulDescAttributes_t as Desc;
        use sys::cublasLtMatmulPreferenceAttributes_t as Pref;
        let reduction: u32 = if key.split {
            sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32
        } else {
            sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_NONE as u32
        };
        let workspace = WORKSPACE;
        let mut found = Vec::<sys::cublasLtMatmulHeuristicResult_t>::with_capacity(1);
        let mut count = 0;
        // SAFETY: attributes are of the sizes that the interface names; descriptors were just made; one
        // result fits into `found`.
        unsafe {
            check(
                sys::cublasLtMatmulDescCreate(
                    &raw mut desc,
                    sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                    sys::cudaDataType_t::CUDA_R_32F,
                ),
                "a description",
            )?;
            for (attribute, value) in [
                (Desc::CUBLASLT_MATMUL_DESC_TRANSA, first),
                (Desc::CUBLASLT_MATMUL_DESC_TRANSB, second),
            ] {
                check(
                    sys::cublasLtMatmulDescSetAttribute(
                        desc,
                        attribute,
                        (&raw const value).cast(),
                        size_of_val(&value),
                    ),
                    "a transpose",
                )?;
            }
            check(
                sys::cublasLtMatmulPreferenceCreate(&raw mut pref),
                "a preference",
            )?;
            let set = |attribute, value: *const c_void, size| {
                check(
                    sys::cublasLtMatmulPreferenceSetAttribute(pref, attribute, value, size),
                    "a preference",
                )
            };
            set(
                Pref::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                (&raw const workspace).cast(),
                size_of::<usize>(),
            )?;
            set(
                Pref::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                (&raw const reduction).cast(),
                4,
            )?;
            let [a, b, c, d] = key.alignment;
            for (attribute, value) in [
                (Pref::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, b),
                (Pref::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, a),
                (Pref::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, c),
                (Pref::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, d),
            ] {
                set(attribute, (&raw const value).cast(), 4)?;
            }
            let status = sys::cublasLtMatmulAlgoGetHeuristic(
                self.handle,
                desc,
                operands.first.0,
                operands.second.0,
                operands.add.0,
                operands.out.0,
                pref,
                1,
                found.as_mut_ptr(),
                &raw mut count,
            );
            let _ = sys::cublasLtMatmulPreferenceDestroy(pref);
            check(status, &format!("an algorithm for {:?}", key.mnk))?;
            found.set_len(count as usize);
        }
        let result = found.first().ok_or_else(|| {
            Error::device(format!("cuBLASLt has no algorithm for {:?}", key.mnk), "")
        })?;
        Ok(Plan {
            desc,
            algo: result.algo,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_without_memory_is_told_from_one_that_refuses() {
        use sys::cublasStatus_t as Status;
        let told = |status| check(status, "starting").unwrap_err();
        let full = told(Status::CUBLAS_STATUS_ALLOC_FAILED);
        assert_eq!(full.code(), "qlora::out-of-memory");
        assert_eq!(
            full.to_string(),
            "cuBLASLt, starting: there is not enough memory"
        );
        let refused = told(Status::CUBLAS_STATUS_NOT_SUPPORTED);
        assert_eq!(refused.code(), "qlora::device");
    }
}
