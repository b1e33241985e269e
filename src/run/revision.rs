//! Which commit a checkout is at, read from git's own files: a run starts no `git`.

use std::path::Path;

/// The commit of the checkout that holds `folder`; empty where there is none.
pub(crate) fn revision(folder: &Path) -> String {
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let mut above = folder.ancestors().map(|folder| folder.join(".git"));
    above
        .find(|git| git.exists())
        .and_then(|git| commit(&git))
        .unwrap_or_default()
}

fn commit(git: &Path) -> Option<String> {
    // A work tree has a file that names its folder.
    let own = match std::fs::read_to_string(git) {
        Ok(text) => git.parent()?.join(text.strip_prefix("gitdir:")?.trim()),
        Err(_) => git.to_owned(),
    };
    let head = std::fs::read_to_string(own.join("HEAD")).ok()?;
    let Some(name) = head.trim().strip_prefix("ref: ") else {
        return hex(head.trim());
    };
    let common = std::fs::read_to_string(own.join("commondir"));
    let common = common.map_or_else(|_| own.clone(), |path| own.join(path.trim()));
    if let Ok(text) = std::fs::read_to_string(common.join(name)) {
        return hex(text.trim());
    }
    let packed = std::fs::read_to_string(common.join("packed-refs")).ok()?;
    let mut lines = packed.lines().filter_map(|line| line.split_once(' '));
    let (commit, _) = lines.find(|(_, found)| *found == name)?;
    hex(commit)
}

fn hex(text: &str) -> Option<String> {
    (text.len() >= 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::revision;

    #[test]
    fn a_branch_is_followed_also_when_packed_and_in_a_work_tree() {
        let dir = tempfile::tempdir().unwrap();
        let git = dir.path().join(".git");
        assert_eq!(revision(dir.path()), "");
        fs::create_dir_all(git.join("refs/heads")).unwrap();
        fs::write(git.join("HEAD"), "ref: refs/heads/main\n").unwrap();
        let (one, two) = ("1".repeat(40), "2".repeat(40));
        fs::write(
            git.join("packed-refs"),
            format!("# pack\n{one} refs/heads/main\n"),
        )
        .unwrap();
        assert_eq!(revision(&dir.path().join("below")), one);
        fs::write(git.join("refs/heads/main"), format!("{two}\n")).unwrap();
        assert_eq!(revision(dir.path()), two);
        let tree = dir.path().join("tree");
        fs::create_dir_all(git.join("worktrees/tree")).unwrap();
        fs::create_dir_all(&tree).unwrap();
        fs::write(git.join("worktrees/tree/HEAD"), format!("{one}\n")).unwrap();
        fs::write(tree.join(".git"), "gitdir: ../.git/worktrees/tree\n").unwrap();
        assert_eq!(revision(&tree), one);
    }
}
