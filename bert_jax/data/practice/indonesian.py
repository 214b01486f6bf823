"""Words and topics of Indonesian stories."""

from bert_jax.data.practice.grammar import Fact, Grammar, Topic

WORDS = {
    "person": (
        "Budi", "Sari", "Dewi", "Agus", "Rina", "Joko", "Putri", "Andi", "Wati", "Hendra", "Lestari", "Bayu", "Ayu",
        "Dimas", "Fitri", "Galih", "Intan", "Rudi", "Maya", "Yanto", "Nadia", "Eko", "Tuti", "Surya",
    ),
    "city": (
        "Jakarta", "Bandung", "Surabaya", "Medan", "Makassar", "Semarang", "Palembang", "Yogyakarta", "Denpasar",
        "Malang", "Padang", "Manado", "Pontianak", "Bogor", "Solo", "Ambon", "Kupang", "Jambi", "Cirebon", "Banda Aceh",
    ),
    "group": (
        "Toko Makmur", "Kedai Senja", "Klub Elang", "Sanggar Melati", "Koperasi Sejahtera", "Sekolah Harapan",
        "Penerbit Cahaya", "Warung Bahagia", "Bengkel Jaya", "Rumah Sakit Sehat",
    ),
    "day": ("Senin", "Selasa", "Rabu", "Kamis", "Jumat", "Sabtu", "Minggu"),
    "time": ("pagi", "siang", "sore", "malam"),
    "pet": ("kucing", "anjing", "kelinci", "burung", "ayam", "bebek", "kambing"),
    "petname": ("Manis", "Belang", "Oyen", "Moci", "Timun", "Bintang", "Kopi", "Lala", "Pipit", "Bona"),
    "yard": ("taman", "halaman", "kebun", "teras", "lapangan", "tepi sungai"),
    "bed": ("tikar", "kotak kayu", "kursi tua", "keranjang", "lantai dapur"),
    "color": ("putih", "hitam", "abu-abu", "cokelat", "kuning", "merah"),
    "food": ("beras", "ikan", "telur", "tempe", "tahu", "bayam", "wortel", "pisang", "mangga", "jeruk", "kelapa"),
    "price": ("lima ribu", "delapan ribu", "sepuluh ribu", "dua belas ribu", "dua puluh ribu"),
    "dish": ("soto", "rendang", "gado-gado", "nasi goreng", "sayur asem", "opor", "pecel", "bakso"),
    "taste": ("gurih", "pedas", "manis", "segar", "lezat"),
    "subject": ("matematika", "sejarah", "biologi", "fisika", "bahasa Inggris", "geografi", "seni rupa"),
    "crop": ("padi", "jagung", "cabai", "kedelai", "tebu", "singkong", "kopi", "teh"),
    "month": ("Januari", "Maret", "April", "Juni", "Agustus", "Oktober", "Desember"),
    "vehicle": ("kereta", "bus", "kapal", "pesawat", "mobil tua", "sepeda motor"),
    "gift": ("kain batik", "kue kering", "buku cerita", "topi anyaman", "kopi bubuk"),
    "score": ("dua lawan satu", "tiga lawan nol", "satu lawan nol", "empat lawan dua"),
    "sport": ("sepak bola", "bulu tangkis", "bola voli", "basket", "tenis meja"),
    "instrument": ("gitar", "suling", "angklung", "biola", "gendang", "piano"),
    "book": ("Laut Biru", "Hujan Pertama", "Jalan Pulang", "Langit Timur", "Rumah Kayu"),
}  # fmt: skip

PET = Topic(
    opening=(
        Fact.of(
            "{person} memelihara seekor {pet} bernama {petname}.",
            ("Siapa yang memelihara {petname}?", "person"),
            ("Hewan apa yang dipelihara {person}?", "pet"),
        ),
        Fact.of("Di rumah {person} ada seekor {pet} bernama {petname}.", ("Siapa nama {pet} itu?", "petname")),
    ),
    facts=(
        Fact.of("{pet} itu berwarna {color}.", ("Apa warna {petname}?", "color")),
        Fact.of("Setiap {time} {petname} bermain di {yard}.", ("Di mana {petname} bermain?", "yard")),
        Fact.of("{pet} itu [sangat|cukup|agak] jinak dan suka digendong."),
        Fact.of("{person} memberinya makan {food} dan air bersih.", ("Apa makanan {petname}?", "food")),
        Fact.of("Kalau lelah, {petname} tidur di atas {bed}.", ("Di atas apa {petname} tidur?", "bed")),
        Fact.of("Saat hujan turun, {pet} itu bersembunyi di bawah meja."),
        Fact.of("{person2} sering datang untuk melihat {petname}.", ("Siapa yang sering datang?", "person2")),
    ),
)
MARKET = Topic(
    opening=(
        Fact.of("Pada hari {day} {person} pergi ke pasar di {city}.", ("Kapan {person} pergi ke pasar?", "day")),
        Fact.of("{person} berjualan {food} di pasar {city}.", ("Di kota mana {person} berjualan?", "city")),
    ),
    facts=(
        Fact.of("Pasar itu [ramai|penuh orang|sesak] sejak {time}."),
        Fact.of(
            "{person2} membeli {food} dan {food2} di sana.",
            ("Siapa yang membeli {food}?", "person2"),
            ("Apa yang dibeli {person2} selain {food}?", "food2"),
        ),
        Fact.of("Harga {food} hanya {price} rupiah.", ("Berapa rupiah harga {food}?", "price")),
        Fact.of("Pembeli menawar, tetapi penjual [tetap tersenyum|menggeleng|tertawa]."),
        Fact.of("Di samping pasar ada {group}.", ("Apa yang ada di samping pasar?", "group")),
        Fact.of("{food2} dari {city2} lebih mahal.", ("Dari mana {food2} yang lebih mahal?", "city2")),
        Fact.of("Keranjang belanja {person} akhirnya penuh."),
    ),
)
SCHOOL = Topic(
    opening=(
        Fact.of("{person} belajar {subject} di sekolah.", ("Apa yang dipelajari {person}?", "subject")),
        Fact.of("Tahun ini {person} bersekolah di {city}.", ("Di mana {person} bersekolah?", "city")),
    ),
    facts=(
        Fact.of("Gurunya, {person2}, mengajar dengan sabar.", ("Siapa nama gurunya?", "person2")),
        Fact.of("Pelajaran {subject} dimulai pada {time} hari.", ("Kapan pelajaran {subject} dimulai?", "time")),
        Fact.of("Para murid [menulis|membaca|berdiskusi] di dalam kelas."),
        Fact.of("Ujian {subject} diadakan pada hari {day}.", ("Hari apa ujian {subject}?", "day")),
        Fact.of("Sesudah pelajaran, mereka bermain {sport}.", ("Olahraga apa yang mereka mainkan?", "sport")),
        Fact.of("{person} mendapat nilai yang [baik|tinggi|memuaskan] dalam ujian."),
        Fact.of("Buku pelajaran itu dibeli di {group}.", ("Di mana buku itu dibeli?", "group")),
    ),
)
FARM = Topic(
    opening=(
        Fact.of(
            "{person} menanam {crop} di dekat {city}.",
            ("Apa yang ditanam {person}?", "crop"),
            ("Siapa yang menanam {crop}?", "person"),
        ),
        Fact.of("Petani di {city} menanam {crop}.", ("Di mana petani menanam {crop}?", "city")),
    ),
    facts=(
        Fact.of("Hujan [deras|lebat|ringan] turun sejak bulan {month}.", ("Sejak bulan apa hujan turun?", "month")),
        Fact.of("Sawah dan ladang menjadi [hijau|basah|subur]."),
        Fact.of("{crop} itu tumbuh dengan cepat."),
        Fact.of("{person2} membantu di ladang setiap hari {day}.", ("Siapa yang membantu di ladang?", "person2")),
        Fact.of("Panen {crop} dijual kepada {group}.", ("Kepada siapa {crop} dijual?", "group")),
        Fact.of("Harga {crop} di {city2} sedang naik.", ("Di kota mana harga {crop} naik?", "city2")),
        Fact.of("Para petani berharap cuaca tetap [cerah|baik|teduh]."),
    ),
)
TRAVEL = Topic(
    opening=(
        Fact.of(
            "{person} naik {vehicle} dari {city} ke {city2}.",
            ("Dari mana {person} berangkat?", "city"),
            ("Ke mana {person} pergi?", "city2"),
            ("Naik apa {person}?", "vehicle"),
        ),
        Fact.of("Hari {day} {person} berangkat ke {city2}.", ("Kapan {person} berangkat?", "day")),
    ),
    facts=(
        Fact.of("Perjalanan itu [lama|panjang|menyenangkan] sekali."),
        Fact.of("Dari jendela {vehicle} tampak [gunung|laut|sawah|hutan]."),
        Fact.of("{person2} menunggu di {city2}.", ("Siapa yang menunggu di {city2}?", "person2")),
        Fact.of("{person} membawa {gift} sebagai oleh-oleh.", ("Apa oleh-oleh {person}?", "gift")),
        Fact.of("{vehicle} itu tiba pada {time} hari.", ("Kapan {vehicle} itu tiba?", "time")),
        Fact.of("Mereka makan {dish} bersama-sama.", ("Apa yang mereka makan?", "dish")),
        Fact.of("Malamnya mereka menginap di dekat {group}.", ("Mereka menginap di dekat apa?", "group")),
    ),
)
SPORT = Topic(
    opening=(
        Fact.of("{person} bermain {sport} untuk {group}.", ("Untuk siapa {person} bermain?", "group")),
        Fact.of("Pertandingan {sport} diadakan di {city}.", ("Di mana pertandingan diadakan?", "city")),
    ),
    facts=(
        Fact.of("Penonton [bersorak|bertepuk tangan|bernyanyi] sepanjang pertandingan."),
        Fact.of("Regu dari {city2} bermain lebih [lambat|kasar|hati-hati].", ("Dari mana regu itu?", "city2")),
        Fact.of("{person2} melatih regu itu sejak {month}.", ("Siapa yang melatih regu itu?", "person2")),
        Fact.of("Hasil akhirnya {score}.", ("Apa hasil akhirnya?", "score")),
        Fact.of("Wasit meniup peluit dan pertandingan selesai."),
        Fact.of("Regu itu memakai baju {color}.", ("Apa warna baju regu itu?", "color")),
        Fact.of("Latihan berikutnya diadakan pada hari {day}.", ("Hari apa latihan berikutnya?", "day")),
    ),
)
KITCHEN = Topic(
    opening=(
        Fact.of(
            "{person} memasak {dish} untuk keluarganya.",
            ("Siapa yang memasak {dish}?", "person"),
            ("Apa yang dimasak {person}?", "dish"),
        ),
        Fact.of("Resep {dish} itu berasal dari {city}.", ("Dari mana resep {dish}?", "city")),
    ),
    facts=(
        Fact.of("Bahannya {food} dan {food2}.", ("Apa bahannya selain {food}?", "food2")),
        Fact.of("Bumbu [digiling|dihaluskan|ditumis] lebih dahulu."),
        Fact.of("{dish} itu dimasak dengan api kecil."),
        Fact.of("Rasanya {taste} sekali.", ("Bagaimana rasanya?", "taste")),
        Fact.of(
            "{person2} mencicipi kuahnya lalu [tersenyum|mengangguk|memuji].", ("Siapa yang mencicipi?", "person2")
        ),
        Fact.of("Masakan itu dihidangkan pada {time} hari.", ("Kapan masakan itu dihidangkan?", "time")),
        Fact.of("Sisa {dish} dikirim ke {group}.", ("Ke mana sisa {dish} dikirim?", "group")),
    ),
)
ARTS = Topic(
    opening=(
        Fact.of("{person} belajar memainkan {instrument}.", ("Apa yang dimainkan {person}?", "instrument")),
        Fact.of("{person} membaca buku {book} di perpustakaan.", ("Buku apa yang dibaca {person}?", "book")),
    ),
    facts=(
        Fact.of("Ia berlatih di {group} setiap {time}.", ("Di mana ia berlatih?", "group")),
        Fact.of("Suara {instrument} itu terdengar [merdu|lembut|nyaring]."),
        Fact.of("{person2} menulis lagu tentang kota {city}.", ("Siapa yang menulis lagu?", "person2")),
        Fact.of("Pertunjukan akan diadakan di {city2}.", ("Di mana pertunjukan diadakan?", "city2")),
        Fact.of("Cerita {book} membuat para pendengar [terharu|tertawa|diam]."),
        Fact.of("Tiketnya {price} rupiah.", ("Berapa rupiah tiketnya?", "price")),
        Fact.of("Pada bulan {month} mereka tampil lagi.", ("Bulan apa mereka tampil lagi?", "month")),
    ),
)
GRAMMAR = Grammar(
    words=WORDS,
    topics={
        "pet": PET, "market": MARKET, "school": SCHOOL, "farm": FARM, "travel": TRAVEL, "sport": SPORT,
        "kitchen": KITCHEN, "arts": ARTS,
    },
)  # fmt: skip
