//! The words that generated customers are made of. Nothing here is chosen or counted.
//!
//! The bytes of every generated file follow from the content and order of these lists: an edit
//! changes the golden hashes in `tests/generate.rs`, and with them every figure ever measured.
//! Names used in e-mails and web addresses are one capital letter and then a-z, so that lower
//! case is one bit.

/// Splits a multi-line list at `|` while compiling, so that the source stays readable.
const fn split<const N: usize>(list: &'static str) -> [&'static str; N] {
    let mut words = [""; N];
    let mut rest = list;
    let mut n = 0;
    loop {
        let bytes = rest.as_bytes();
        let mut end = 0;
        while end < bytes.len() && bytes[end] != b'|' {
            end += 1;
        }
        let (word, tail) = rest.split_at(end);
        words[n] = word;
        n += 1;
        if tail.is_empty() {
            break;
        }
        rest = tail.split_at(1).1;
    }
    assert!(n == N, "the list has another length than its type says");
    words
}

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident: $n:literal = $list:literal;)*) => {$(
        $(#[$doc])*
        pub(super) static $name: [&str; $n] = split($list);
    )*};
}

words! {
    FIRST: 191 = "Aaron|Abigail|Adam|Adrian|Adriana|Aimee|Alejandro|Alexandra|Alexis|Alfred|Alice|Alicia|\
Allison|Alvin|Alyssa|Amanda|Amber|Andrea|Angelica|Annette|Anthony|April|Arthur|Ashley|Austin|Barbara|\
Barry|Beatrice|Benjamin|Bernard|Beth|Bethany|Beverly|Bianca|Bonnie|Bradley|Brandon|Brenda|Brent|\
Brianna|Bridget|Brittany|Bruce|Bryan|Caitlin|Calvin|Cameron|Candice|Carla|Carlos|Caroline|Cassandra|\
Catherine|Cheryl|Christian|Christina|Christopher|Claire|Clarence|Claudia|Clayton|Colleen|Connor|Craig|\
Crystal|Cynthia|Damon|Daniel|Danielle|Darrell|Deanna|Deborah|Denise|Dennis|Derrick|Desiree|Devin|\
Diamond|Dominic|Donald|Dorothy|Douglas|Dustin|Dwayne|Eddie|Edward|Eileen|Elaine|Elijah|Elizabeth|\
Emily|Emma|Eric|Erika|Ernest|Ethan|Evelyn|Felicia|Fernando|Frances|Francisco|Franklin|Gabriel|\
Gabrielle|Gerald|Gilbert|Glenn|Gloria|Grace|Gregory|Gwendolyn|Hannah|Harold|Hayden|Heather|Hector|\
Herbert|Holly|Isaac|Isabella|Jacob|Jacqueline|Jamie|Janice|Jasmine|Javier|Jeffrey|Jennifer|Jeremiah|\
Jessica|Jillian|Joanna|Jonathan|Jordan|Joseph|Joshua|Joyce|Judith|Julian|Justin|Karen|Katherine|\
Kathleen|Kayla|Kelsey|Kenneth|Kimberly|Kristopher|Kyle|Latoya|Lauren|Leonard|Leslie|Lindsay|Lorraine|\
Louis|Lucas|Mackenzie|Madeline|Makayla|Marcus|Margaret|Marilyn|Matthew|Melissa|Meredith|Michelle|\
Miguel|Miranda|Monique|Nathaniel|Natalie|Nicholas|Norman|Olivia|Pamela|Patricia|Phillip|Priscilla|\
Rachel|Raymond|Rebecca|Roberto|Samantha|Sheryl|Stephanie|Theodore|Valerie|Veronica|Wesley|Zachary";

    LAST: 259 = "Acevedo|Adams|Adkins|Aguilar|Alexander|Allison|Alvarado|Anderson|Andrews|Archer|Arellano|\
Armstrong|Arnold|Atkinson|Avery|Baker|Baldwin|Ballard|Barajas|Barnett|Barrera|Bartlett|Barton|Bauer|\
Baxter|Beasley|Benjamin|Bennett|Benson|Bentley|Berger|Bernard|Blackburn|Blackwell|Blanchard|Blevins|\
Bond|Booker|Bowman|Boyle|Bradford|Bradshaw|Brandt|Brewer|Brooks|Buchanan|Buckley|Burgess|Burnett|\
Cabrera|Calderon|Calhoun|Callahan|Camacho|Cameron|Campbell|Cantrell|Cardenas|Carlson|Carpenter|\
Castaneda|Castillo|Cervantes|Chambers|Chandler|Chapman|Charles|Christensen|Cisneros|Clarke|Clements|\
Cochran|Coleman|Collier|Conley|Contreras|Cordova|Crawford|Cummings|Cunningham|Daniels|Daugherty|Davenport|\
Davidson|Delacruz|Delgado|Dickerson|Dickson|Dominguez|Donaldson|Donovan|Dougherty|Douglas|Duncan|Durham|\
Edwards|Elliott|Ellison|Escobar|Esparza|Espinoza|Estrada|Faulkner|Ferguson|Fernandez|Figueroa|\
Fitzgerald|Fitzpatrick|Fleming|Fletcher|Flowers|Floyd|Franklin|Frazier|Freeman|Friedman|Fuentes|\
Galloway|Gallagher|Galvan|Garrison|Gentry|Gilbert|Gillespie|Glover|Goodman|Goodwin|Graham|Graves|\
Griffith|Guerrero|Gutierrez|Hamilton|Hammond|Hampton|Hancock|Hardin|Harrell|Harrington|Hatfield|\
Hawkins|Henderson|Hendricks|Henson|Hernandez|Herrera|Hickman|Hodges|Hoffman|Holloway|Hopkins|Houston|\
Howard|Huffman|Humphrey|Hutchinson|Ibarra|Jefferson|Jennings|Johnston|Juarez|Kaufman|Keller|Kennedy|\
Kirkpatrick|Knapp|Krause|Lambert|Landry|Larson|Lawrence|Leblanc|Leonard|Lindsey|Livingston|Lozano|\
Macdonald|Maldonado|Manning|Marquez|Marshall|Martinez|Matthews|Maynard|Mcbride|Mccarthy|Mcclain|\
Mcconnell|Mccormick|Mcdaniel|Mcdowell|Mcfarland|Mcgee|Mcintosh|Mckenzie|Mclaughlin|Mcmillan|Melendez|\
Mendoza|Mercado|Meyers|Middleton|Mitchell|Montgomery|Montoya|Morrison|Mullins|Navarro|Newman|Nicholson|\
Norris|Novak|Oconnell|Odonnell|Oliver|Orozco|Osborne|Pacheco|Palmer|Patrick|Patterson|Pearson|Pennington|\
Perkins|Peterson|Phillips|Pollard|Potter|Preston|Pruitt|Ramirez|Randolph|Rasmussen|Reynolds|\
Richardson|Robertson|Rodgers|Rosario|Sanders|Saunders|Schaefer|Schmidt|Shaffer|Shepherd|Simmons|\
Skinner|Solomon|Stephenson|Strickland|Sutton|Thornton|Underwood|Valenzuela|Velasquez|Wallace|\
Washington|Whitehead|Wilkerson|Zimmerman";

    /// Given to a few customers only: most of a real file is ASCII, and all of it may not be.
    FIRST_ACCENTED: 16 = "José|Zoë|André|Chloé|François|Jürgen|Renée|Søren|Núria|Łukasz|Børge|Anaïs|\
Владимир|Ελένη|美咲|Ömer";

    LAST_ACCENTED: 16 = "Müller|García|Nuñez|Lefèvre|Håkansson|Øverland|Kovačević|Dvořák|Gonçalves|\
Jørgensen|Wałęsa|Çelik|O’Brien|Иванова|田中|Strauß";

    COMPANY_FORM: 6 = "Ltd|Inc|LLC|PLC|Group|and Sons";

    CITY_PREFIX: 8 = "East |West |North |South |Lake |Port |New |";

    CITY_SUFFIX: 16 = "|berg|borough|burgh|bury|chester|fort|furt|haven|land|mouth|port|shire|side|ton|ville";

    TOP_LEVEL: 6 = ".com|.net|.org|.biz|.info|.com";

    COUNTRY: 199 = "Afghanistan|Albania|Algeria|American Samoa|Andorra|Angola|Anguilla|\
Antarctica (the territory South of 60 deg S)|Antigua and Barbuda|Argentina|Armenia|Aruba|Australia|\
Austria|Azerbaijan|Bahamas|Bahrain|Bangladesh|Barbados|Belarus|Belgium|Belize|Benin|Bermuda|Bhutan|\
Bolivia|Bosnia and Herzegovina|Botswana|Bouvet Island (Bouvetoya)|Brazil|\
British Indian Ocean Territory (Chagos Archipelago)|British Virgin Islands|Brunei Darussalam|\
Bulgaria|Burkina Faso|Burundi|Cambodia|Cameroon|Canada|Cape Verde|Cayman Islands|\
Central African Republic|Chad|Chile|China|Christmas Island|Cocos (Keeling) Islands|Colombia|Comoros|\
Congo|Cook Islands|Costa Rica|Cote d'Ivoire|Croatia|Cuba|Cyprus|Czech Republic|Denmark|Djibouti|\
Dominica|Dominican Republic|Ecuador|Egypt|El Salvador|Equatorial Guinea|Eritrea|Estonia|Ethiopia|\
Falkland Islands (Malvinas)|Faroe Islands|Fiji|Finland|France|French Guiana|French Polynesia|\
French Southern Territories|Gabon|Gambia|Georgia|Germany|Ghana|Gibraltar|Greece|Greenland|Grenada|\
Guadeloupe|Guam|Guatemala|Guernsey|Guinea|Guinea-Bissau|Guyana|Haiti|\
Heard Island and McDonald Islands|Holy See (Vatican City State)|Honduras|Hong Kong|Hungary|Iceland|\
India|Indonesia|Iran|Iraq|Ireland|Isle of Man|Israel|Italy|Jamaica|Japan|Jersey|Jordan|Kazakhstan|\
Kenya|Kiribati|Korea|Kuwait|Kyrgyz Republic|Lao People's Democratic Republic|Latvia|Lebanon|Lesotho|\
Liberia|Libyan Arab Jamahiriya|Liechtenstein|Lithuania|Luxembourg|Macao|Madagascar|Malawi|Malaysia|\
Maldives|Mali|Malta|Marshall Islands|Martinique|Mauritania|Mauritius|Mayotte|Mexico|Micronesia|\
Moldova|Monaco|Mongolia|Montenegro|Montserrat|Morocco|Mozambique|Myanmar|Namibia|Nauru|Nepal|\
Netherlands|Netherlands Antilles|New Caledonia|New Zealand|Nicaragua|Niger|Nigeria|Niue|\
Norfolk Island|North Macedonia|Northern Mariana Islands|Norway|Oman|Pakistan|Palau|\
Palestinian Territory|Panama|Papua New Guinea|Paraguay|Peru|Philippines|Pitcairn Islands|Poland|\
Portugal|Puerto Rico|Qatar|Reunion|Romania|Russian Federation|Rwanda|Saint Barthelemy|Saint Helena|\
Saint Kitts and Nevis|Saint Lucia|Saint Vincent and the Grenadines|Samoa|San Marino|\
Sao Tome and Principe|Senegal|South Georgia and the South Sandwich Islands|Svalbard & Jan Mayen Islands|\
Switzerland|Turks and Caicos Islands|United Arab Emirates|United States Minor Outlying Islands|\
Uruguay|Uzbekistan|Zimbabwe";

    /// `#` is a digit.
    PHONE: 16 = "###-###-####x####|(###)###-####x#####|001-###-###-####x###|+1-###-###-####x#####|\
###.###.####|##########|###-###-####|(###)###-####|###.###.####x###|###-###-####x#####|\
001-###-###-####x#####|+1-###-###-####|(###)###-####x###|001-###-###-####|###.###.####|##########";

    /// About texts are WHO + DOES + WHAT, sentence by sentence; quotes are doubled already.
    WHO: 32 = "The account manager|Their procurement team|The new branch office|Our regional partner|\
A long-standing contact|The managing director|Somebody in accounting|Their warehouse in the north|\
The founder, now retired,|The buyer, who signs everything,|A second contact person|The holding company|\
Their call centre|The former sales lead|The head of \"\"Special Projects\"\"|The purchasing assistant|\
Their key account desk|A subsidiary abroad|The technical lead|Their auditor|The family that owns it|\
Everyone at the front desk|The interim manager|Their legal counsel|The site by the lake|\
The café next to the plant|A freelance adviser|The team behind \"\"Blue Harbor\"\"|The owner|\
The spring campaign list|Their newest customer|The marketing department";

    DOES: 32 = "asked for a written quote on|would rather not discuss|renewed the contract for|\
sent three complaints about|paid early, as always, for|has been waiting since March for|\
wants a second opinion on|cancelled, then re-ordered,|prefers e-mail when it comes to|\
recommended us to others because of|still owes us an answer about|\
called it \"\"the best offer so far\"\" for|compared four vendors, and chose us, for|\
needs an invoice in two currencies for|was not available to talk about|\
plans to double the budget of|signed off, subject to review,|keeps a printed copy of|\
described in detail|put on hold|negotiated a discount of 12.5 % on|forwarded our notes on|\
is happy with|changed the delivery address of|takes a keen interest in|\
lost, and later found, the papers for|insists on \"\"no surprises\"\" with|tested for six weeks|\
reported no problems with|scheduled a visit to see|expects a call back about|has questions about";

    WHAT: 32 = "the autumn shipment, spare parts included.|two pallets of A4 paper.|\
the \"\"Gold\"\" support plan.|a pilot with 25 seats, extendable to 400.|the annual maintenance.|\
everything we delivered in 2021, 2022 and early 2023.|the loyalty programme; see the attachment.|\
an upgrade of the cold storage, the dock and the ramp.|the integration with their old CRM.|\
the training days in June.|our price list, edition \"\"B\"\", page 14.|a custom label: 80 x 50 mm.|\
the data export, weekly, as CSV.|the returns policy - twice.|a framework agreement until 2027.|\
the line marked \"\"urgent\"\" in the last order.|their booth at the fair, hall 7.|\
the migration, which went well, all in all.|replacement filters (type 3/8\"\").|the new premises.|\
late deliveries in week 14, 15 and 17.|the joint press release.|a credit line of 50,000.|\
the fleet of 12 vans, all electric.|some 300 samples, free of charge.|the rebate.|\
the web shop, the catalogue and the newsletter.|the warranty case #4471.|monthly reports.|\
an exhibition on Design & Crafts.|the waste water permit.|the catering, vegetarian only.";
}
