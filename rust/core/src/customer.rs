//! The customer: its columns in the one order that COPY, SQL and bit sets use.
//!
//! `python/customer_panel/customer.py` is made from it.
//!
//! Columns are only ever appended. The place of a column is its bit in `edited_fields` and its place in `edit_base`,
//! in every row that was ever written.

/// Raised when a rule of normalisation changes. It is hashed with every row, so that the next import of an old file
/// takes each row as changed, once, and writes it as the new rules say.
pub const RULES_VERSION: u32 = 2;

/// How a value is normalised and sent to PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text that says who the customer is: in NFC, without what Excel adds to a number.
    Identity,
    Text,
    /// Text in lower case and in NFC.
    Email,
    Date,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Identity => "identity",
            Kind::Text => "text",
            Kind::Email => "email",
            Kind::Date => "date",
        }
    }
}

/// One column of the customer.
#[derive(Debug)]
pub struct Field {
    /// The column in SQL.
    pub name: &'static str,
    /// The name in the API and in `--map`.
    pub camel: &'static str,
    pub kind: Kind,
    /// The longest value in characters, as it is stored; 0 for a date.
    pub limit: u32,
    /// Header names that mean this field, best first.
    pub aliases: &'static [&'static str],
}

const fn field(
    name: &'static str,
    camel: &'static str,
    kind: Kind,
    limit: u32,
    aliases: &'static [&'static str],
) -> Field {
    Field {
        name,
        camel,
        kind,
        limit,
        aliases,
    }
}

pub const CUSTOMER_ID: usize = 0;
pub const FIRST_NAME: usize = 1;
pub const LAST_NAME: usize = 2;
pub const PHONE1: usize = 6;
pub const PHONE2: usize = 7;
pub const EMAIL: usize = 8;
pub const SUBSCRIPTION_DATE: usize = 9;

#[rustfmt::skip]
pub const FIELDS: [Field; 12] = [
    field("customer_id", "customerId", Kind::Identity, 255, &["customer id", "id", "external id"]),
    field("first_name", "firstName", Kind::Text, 100, &["first name"]),
    field("last_name", "lastName", Kind::Text, 100, &["last name"]),
    field("company", "company", Kind::Text, 200, &["company", "company name", "organization", "organisation"]),
    field("city", "city", Kind::Text, 100, &["city", "town"]),
    field("country", "country", Kind::Text, 100, &["country", "country name"]),
    field("phone1", "phone1", Kind::Text, 50, &["phone 1", "phone", "mobile", "mobile number"]),
    field("phone2", "phone2", Kind::Text, 50, &["phone 2", "secondary phone"]),
    field("email", "email", Kind::Email, 254, &["email", "mail", "email address"]),
    field("subscription_date", "subscriptionDate", Kind::Date, 0, &["subscription date", "subscribed at", "created at"]),
    field("website", "website", Kind::Text, 500, &["website", "url", "site"]),
    field("about_customer", "aboutCustomer", Kind::Text, 2000, &["about customer", "about", "notes", "description", "bio"]),
];

/// The pseudo field that is split into first and last name; its number is its bit in a plan's `mapped`.
pub const FULL_NAME: usize = FIELDS.len();
pub const FULL_NAME_NAMES: [&str; 2] = ["full_name", "fullName"];
pub const FULL_NAME_ALIASES: &[&str] = &["full name", "name", "customer name"];
