//! No circle between the files of `src`, and the rooms in one order.
//!
//! Reads the paths in the text: `use` lines and paths inside code. What stands in a `#[cfg(test)]` module does not
//! count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A file may use files of its own room and of the rooms before it.
const ROOMS: [&str; 11] = [
    "customer", "pgcopy", "csv", "values", "plan", "identity", "rows", "batch", "pipeline",
    "bench", "generate",
];

/// The module of a file (`["csv", "index"]`; none for `lib.rs`) to its text.
type Sources = BTreeMap<Vec<String>, String>;
/// A module to the modules that it uses.
type Uses = BTreeMap<Vec<String>, BTreeSet<Vec<String>>>;

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Colons,
    Sign(char),
}

/// Words and signs, without comments, texts and characters.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let (mut at, mut found) = (0, Vec::new());
    while let Some(&c) = chars.get(at) {
        let next = chars.get(at + 1).copied().unwrap_or(' ');
        match c {
            '/' if next == '/' => at += chars[at..].iter().take_while(|c| **c != '\n').count(),
            '"' => {
                at += 1;
                while chars.get(at).is_some_and(|c| *c != '"') {
                    at += if chars[at] == '\\' { 2 } else { 1 };
                }
                at += 1;
            }
            // A character, not a lifetime.
            '\'' if next == '\\' => {
                at += 3 + chars[at + 3..].iter().take_while(|c| **c != '\'').count() + 1;
            }
            '\'' if chars.get(at + 2) == Some(&'\'') => at += 3,
            ':' if next == ':' => {
                found.push(Token::Colons);
                at += 2;
            }
            _ if c.is_alphanumeric() || c == '_' => {
                let is_word = |c: &&char| c.is_alphanumeric() || **c == '_';
                let length = chars[at..].iter().take_while(is_word).count();
                found.push(Token::Word(chars[at..at + length].iter().collect()));
                at += length;
            }
            _ => {
                if !c.is_whitespace() {
                    found.push(Token::Sign(c));
                }
                at += 1;
            }
        }
    }
    found
}

/// Reads a path and the tree behind it (`a::{b, c::d}`) from `at` on; where it ends.
fn read_path(
    tokens: &[Token],
    mut at: usize,
    prefix: &[String],
    paths: &mut Vec<Vec<String>>,
) -> usize {
    let mut path = prefix.to_vec();
    while let Some(Token::Word(word)) = tokens.get(at) {
        path.push(word.clone());
        at += 1;
        if tokens.get(at) != Some(&Token::Colons) {
            break;
        }
        at += 1;
        if tokens.get(at) == Some(&Token::Sign('{')) {
            at += 1;
            while tokens
                .get(at)
                .is_some_and(|token| *token != Token::Sign('}'))
            {
                match tokens[at] {
                    Token::Word(_) => at = read_path(tokens, at, &path, paths),
                    _ => at += 1,
                }
            }
            return at + 1;
        }
    }
    paths.push(path);
    at
}

/// The paths in a file, each with the module in which it stands.
fn paths(text: &str, file: &[String]) -> Vec<(Vec<String>, Vec<String>)> {
    let text = text
        .split("\n#[cfg(test)]\nmod ")
        .next()
        .unwrap_or_default();
    let tokens = tokens(text);
    let (mut at, mut depth, mut found) = (0, 0, Vec::new());
    let mut module = file.to_vec();
    let mut inline: Vec<usize> = Vec::new();
    while at < tokens.len() {
        match (&tokens[at], tokens.get(at + 1), tokens.get(at + 2)) {
            (Token::Word(word), Some(Token::Word(name)), Some(Token::Sign('{')))
                if word == "mod" =>
            {
                module.push(name.clone());
                inline.push(depth);
                depth += 1;
                at += 3;
            }
            (Token::Word(_), Some(Token::Colons), _) => {
                let mut paths = Vec::new();
                at = read_path(&tokens, at, &[], &mut paths);
                found.extend(paths.into_iter().map(|path| (module.clone(), path)));
            }
            (token, ..) => {
                match token {
                    Token::Sign('{') => depth += 1,
                    Token::Sign('}') => {
                        depth -= 1;
                        if inline.last() == Some(&depth) {
                            inline.pop();
                            module.pop();
                        }
                    }
                    _ => {}
                }
                at += 1;
            }
        }
    }
    found
}

/// The file that a path means, if it is one of ours.
fn file_of(sources: &Sources, module: &[String], path: &[String]) -> Option<Vec<String>> {
    let mut absolute = match path[0].as_str() {
        "crate" => Vec::new(),
        "self" => module.to_vec(),
        "super" => module[..module.len() - 1].to_vec(),
        child => {
            let child = [module, &[child.to_owned()]].concat();
            return sources
                .contains_key(&child)
                .then(|| longest(sources, [module, path].concat()));
        }
    };
    for part in &path[1..] {
        match part.as_str() {
            "super" => drop(absolute.pop()),
            _ => absolute.push(part.clone()),
        }
    }
    Some(longest(sources, absolute))
}

/// The longest beginning of `path` that is a file.
fn longest(sources: &Sources, mut path: Vec<String>) -> Vec<String> {
    while !sources.contains_key(&path) {
        path.pop();
    }
    path
}

fn uses(sources: &Sources) -> Uses {
    let of = |(file, text): (&Vec<String>, &String)| {
        let used = paths(text, file)
            .into_iter()
            .filter_map(|(module, path)| file_of(sources, &module, &path));
        (file.clone(), used.filter(|used| used != file).collect())
    };
    sources.iter().map(of).collect()
}

/// A circle, as the files on it, the first one again at the end.
fn circle(uses: &Uses) -> Option<Vec<String>> {
    fn walk(
        at: &Vec<String>,
        uses: &Uses,
        way: &mut Vec<Vec<String>>,
        done: &mut BTreeSet<Vec<String>>,
    ) -> bool {
        let is_closed = way.contains(at);
        way.push(at.clone());
        if is_closed
            || (!done.contains(at) && uses[at].iter().any(|next| walk(next, uses, way, done)))
        {
            return true;
        }
        way.pop();
        done.insert(at.clone());
        false
    }
    let mut done = BTreeSet::new();
    uses.keys().find_map(|start| {
        let mut way = Vec::new();
        walk(start, uses, &mut way, &mut done).then(|| {
            let first = way
                .iter()
                .position(|file| Some(file) == way.last())
                .unwrap_or(0);
            way[first..].iter().map(|file| file.join("::")).collect()
        })
    })
}

fn read(folder: &Path, module: &[String], sources: &mut Sources) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let inside = [module, std::slice::from_ref(&stem)].concat();
        if path.is_dir() {
            read(&path, &inside, sources);
        } else {
            let is_folder = stem == "mod" || stem == "lib";
            let file = if is_folder { module.to_vec() } else { inside };
            sources.insert(file, fs::read_to_string(&path).unwrap());
        }
    }
}

fn source_files() -> Sources {
    let mut sources = Sources::new();
    read(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &[],
        &mut sources,
    );
    assert!(
        sources.len() > 20,
        "these are not the sources: {:?}",
        sources.keys()
    );
    sources
}

#[test]
fn no_circle_joins_files() {
    let found = circle(&uses(&source_files()));
    assert_eq!(
        found,
        None,
        "these files use each other: {}",
        found.clone().unwrap_or_default().join(" -> ")
    );
}

#[test]
fn rooms_use_only_rooms_before_them() {
    let place = |file: &[String]| {
        let room = ROOMS.iter().position(|room| *room == file[0]);
        room.unwrap_or_else(|| panic!("{:?} has no place among the rooms", file[0]))
    };
    for (file, used) in uses(&source_files())
        .iter()
        .filter(|(file, _)| !file.is_empty())
    {
        for used in used {
            assert!(
                place(used) <= place(file),
                "{} uses {}, which comes after it",
                file.join("::"),
                used.join("::")
            );
        }
    }
}

fn sources(files: &[(&str, &str)]) -> Sources {
    let module = |name: &str| {
        name.split("::")
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect()
    };
    files
        .iter()
        .map(|(name, text)| (module(name), text.to_string()))
        .collect()
}

#[test]
fn a_circle_is_found_whatever_way_it_is_written() {
    let ways = [
        "use crate::c::d::X;",
        "use crate::{c::{d::{X, Y}}, e::Z};",
        "use super::c::d::X;",
        "fn f() { crate::c::d::f() }",
        "mod inner { use super::super::c::d::X; }",
        "fn f(c: char) -> bool { c == '\"' || crate::c::d::f() }",
    ];
    for way in ways {
        let sources = sources(&[
            ("", "mod a; mod c;"),
            ("a", way),
            ("c", "mod d;\nuse d::X;"),
            ("c::d", "use crate::e::Y;"),
            ("e", "use crate::a::f;"),
        ]);
        let circle = circle(&uses(&sources)).unwrap_or_default();
        assert_eq!(circle.join(" "), "a c::d e a", "{way}");
    }
}

#[test]
fn tests_comments_and_own_modules_join_nothing() {
    let ways = [
        "// use crate::b::X;",
        "/// See [`crate::b::X`].\nfn f() {}",
        "fn f() -> &'static str { \"crate::b::X\" }",
        "fn f() {}\n\n#[cfg(test)]\nmod tests {\n    use crate::b::X;\n}\n",
        "mod inner { use super::X; }",
        "use std::b::X;",
    ];
    for way in ways {
        let sources = sources(&[("", ""), ("a", way), ("b", "use crate::a::X;")]);
        assert_eq!(circle(&uses(&sources)), None, "{way}");
    }
}
