//! Headers to plans: one line per rule.

use customer_panel_core::plan::error::PlanError;
use customer_panel_core::plan::{Plan, delimiter_of};
use customer_panel_core::values::dates::DateOrder;

fn overrides(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(header, field)| (header.to_string(), field.to_string()))
        .collect()
}

fn planned(sample: &str, given: &[(&str, &str)]) -> Result<(Plan, usize, u32), PlanError> {
    Plan::from_header(sample.as_bytes(), None, &overrides(given), DateOrder::Auto)
}

/// The mapping of a header as `header=field`, and what is left.
macro_rules! plans {
    ($($name:ident: $header:literal $(, $given:expr)* => $mapping:expr, $unmapped:expr;)*) => {
        $(#[test] fn $name() {
            let (plan, _, _) = planned($header, &[$($given),*]).unwrap();
            let mapping = plan.mapping();
            let shown: Vec<_> = mapping.iter().map(|(_, h, field)| format!("{h}={field}")).collect();
            assert_eq!(shown.join(" "), $mapping);
            assert_eq!(plan.unmapped.join(" "), $unmapped);
            // A resumed job has the same plan without guessing.
            let pairs: Vec<_> = mapping.into_iter().map(|(_, h, f)| (h, f.to_string())).collect();
            let again = Plan::restore(plan.delimiter, plan.headers.clone(), &pairs, plan.date_order).unwrap();
            assert_eq!(format!("{again:?}"), format!("{plan:?}"));
        })*
    };
}

plans! {
    snake_case: "customer_id,phone1" => "customer_id=customer_id phone1=phone1", "";
    case_and_marks: "E-MAIL,First.Name,last_name,PHONE-1" => "E-MAIL=email First.Name=first_name last_name=last_name PHONE-1=phone1", "";
    marks_around: "\u{feff} Id ,\u{a0}City\u{200b}" => "Id=customer_id City=city", "";
    quoted: "\"Id\",\"Com\"\"pany\",\"Company\"" => "Id=customer_id Company=company", "Com\"pany";
    better_rank: "Id,Customer Id,Email" => "Customer Id=customer_id Email=email", "Id";
    better_rank_comes_later: "Mail,E-mail" => "E-mail=email", "Mail";
    phone_and_mobile: "id,phone,mobile" => "id=customer_id phone=phone1 mobile=phone2", "";
    mobile_and_phone: "id,mobile,phone" => "id=customer_id mobile=phone2 phone=phone1", "";
    mobile_alone: "id,mobile number" => "id=customer_id mobile number=phone1", "";
    phones_and_mobile: "id,phone 1,phone 2,mobile" => "id=customer_id phone 1=phone1 phone 2=phone2", "mobile";
    second_phone_alone: "id,secondary phone" => "id=customer_id secondary phone=phone2", "";
    three_phones: "id,mobile number,mobile,phone" => "id=customer_id mobile=phone2 phone=phone1", "mobile number";
    full_names: "id,Customer Name" => "id=customer_id Customer Name=full_name", "";
    full_and_first: "id,name,first name" => "id=customer_id name=full_name first name=first_name", "";
    unknown_columns: "Index,id,,Shoe Size" => "id=customer_id", "Index Shoe Size";
    given: "Nr,Adresse", ("Adresse", "email") => "Adresse=email", "Nr";
    given_in_snake_case: "Nr,Adresse", ("nr", "customer_id"), ("adresse", "aboutCustomer") => "Nr=customer_id Adresse=about_customer", "";
    given_beats_the_name: "Email,Mail", ("Mail", "email") => "Mail=email", "Email";
    given_otherwise: "Id,Email", ("Email", "website") => "Id=customer_id Email=website", "";
    given_to_leave_out: "Id,Notes,Bio", ("Notes", "") => "Id=customer_id Bio=about_customer", "Notes";
    given_full_name: "Id,Wer", ("Wer", "fullName") => "Id=customer_id Wer=full_name", "";
    given_the_exact_one: "E-Mail,Email", ("Email", "email") => "Email=email", "E-Mail";
    given_the_first_phone: "id,phone,mobile", ("mobile", "phone1") => "id=customer_id phone=phone2 mobile=phone1", "";
    semicolons: "Id;First, or only;Email" => "Id=customer_id Email=email", "First, or only";
    tabs: "Id\tEmail" => "Id=customer_id Email=email", "";
    bars: "Id|Email" => "Id=customer_id Email=email", "";
    delimiter_of_the_identity: "Email;a,b,c,d,e" => "Email=email", "a,b,c,d,e";
    delimiters_in_quotes: "\"a;b;c\",Email" => "Email=email", "a;b;c";
    one_column: "email" => "email=email", "";
}

macro_rules! failures {
    ($($name:ident: $header:expr $(, $given:expr)* => $code:literal, $message:literal;)*) => {
        $(#[test] fn $name() {
            let error = planned($header, &[$($given),*]).unwrap_err();
            assert_eq!(error.code(), $code);
            assert!(error.to_string().contains($message), "{error}");
        })*
    };
}

failures! {
    empty: "" => "no_header", "empty";
    only_a_mark: "\u{feff}" => "no_header", "empty";
    only_blank_lines: "\n\r\n\n" => "no_header", "empty";
    no_identity: "Index,First Name" => "no_identity_column", "\"Index\", \"First Name\". Accepted: customer id, id, external id, email, mail, email address";
    identity_left_out: "Id,City", ("Id", "") => "no_identity_column", "Accepted";
    equal_names: "id,City,city" => "ambiguous_columns", "\"City\" and \"city\" both claim city";
    equal_names_of_the_second_phone: "id,phone,mobile,Mobile" => "ambiguous_columns", "\"mobile\" and \"Mobile\" both claim phone2";
    given_twice: "id,a,b", ("a", "city"), ("b", "city") => "ambiguous_columns", "\"a\" and \"b\" both claim city";
    given_by_an_equal_name: "id,a,a", ("a", "city") => "ambiguous_columns", "\"a\" and \"a\" both claim city";
    unknown_field: "id,a", ("a", "town") => "unknown_field", "customerId, firstName";
    unknown_column: "id,a", ("b", "city") => "unknown_column", "\"id\", \"a\"";
    unclosed_quote: "id,\"a" => "header_unclosed_quote", "not closed";
    nul: "i\0d\0" => "header_not_utf8", "UTF-8";
    no_end: &"a,".repeat(1 << 20) => "header_too_long", "1048576";
}

#[test]
fn other_encodings_are_named() {
    for sample in [b"\xff\xfei\0d\0\n\0".as_slice(), b"id,Stra\xdfe\n"] {
        let error = Plan::from_header(sample, None, &[], DateOrder::Auto).unwrap_err();
        assert_eq!(error, PlanError::HeaderNotUtf8);
    }
}

#[test]
fn bad_delimiters_are_named() {
    for delimiter in [b'"', b'\n', b'\r', 0, 200, b'a', b'Z', b'7'] {
        let error = Plan::from_header(b"id", Some(delimiter), &[], DateOrder::Auto).unwrap_err();
        assert_eq!(error, PlanError::BadDelimiter);
    }
    let (plan, ..) = Plan::from_header(b"id^email", Some(b'^'), &[], DateOrder::Auto).unwrap();
    assert_eq!(plan.mapped, 1 | 1 << 8);
    for (text, delimiter) in [(",", b','), ("\t", b'\t'), ("\u{1}", 1), (" ", b' ')] {
        assert_eq!(delimiter_of(text), Ok(delimiter));
    }
    for text in [
        "", "||", ",\0", "\"", "\n", "\r", "\0", "t", "7", "\u{fc}", "\u{7c1}",
    ] {
        assert_eq!(delimiter_of(text), Err(PlanError::BadDelimiter), "{text:?}");
    }
    let restored = Plan::restore(b'"', vec!["id".to_owned()], &[], DateOrder::Auto);
    assert_eq!(restored.unwrap_err(), PlanError::BadDelimiter);
}

#[test]
fn the_data_starts_behind_the_header() {
    for (sample, start, lines) in [
        ("id", 2, 0),
        ("id\n7\n", 3, 1),
        ("id\r\n7\r\n", 4, 1),
        ("\u{feff}id,a\r7", 8, 1),
        ("\n\r\nid\n\n7", 6, 3),
        ("id,\"a\nb\"\n7", 9, 2),
    ] {
        let (_, at, line) = planned(sample, &[]).unwrap();
        assert_eq!((at, line), (start, lines), "{sample:?}");
    }
}
