"""What the model is asked: the questions of the pipelines, the same asked in other words, and others."""

LANGUAGES = ("en", "ja")
SUBJECT, COMPOSITION, COLOUR, CAPTION, THING, SCENE, MOOD, OTHER = range(8)
NAMES = ["full.subject", "full.composition", "full.colour", "full.caption", "simple.subject", "simple.scene",
         "simple.mood", "other"]

SHARED = {
    "full": {"en": "Look at the picture carefully and answer briefly.",
             "ja": "画像をよく見て、日本語で簡潔に答えてください。"},
    "simple": {"en": "Answer in one short sentence.", "ja": "日本語の短い一文で答えてください。"},
}

ASK = [
    {"en": "What is shown, how many, and where?", "ja": "何が、いくつ、どこに写っていますか。"},
    {"en": "How is the picture composed?", "ja": "構図はどうなっていますか。"},
    {"en": "What are its colours, its light and its mood?", "ja": "色、光、雰囲気はどうですか。"},
    {"en": "Write a caption to post with it, at most 140 characters.",
     "ja": "この画像に添える投稿文を140字以内で書いてください。"},
    {"en": "What is shown?", "ja": "何が写っていますか。"},
    {"en": "What is the scene or the background?", "ja": "場面や背景は何ですか。"},
    {"en": "What is the mood?", "ja": "どんな雰囲気ですか。"},
]

OTHER_WORDS = [
    {"en": ["Describe the picture.", "What is in the picture and where is it?", "List the objects with number and place.",
            "Where are the objects?", "How many objects are there and where?", "Describe this image."],
     "ja": ["この画像を説明してください。", "何がどこにありますか。", "物と数と場所を挙げてください。",
            "物はどこにありますか。", "画像の内容を教えてください。"]},
    {"en": ["What is the composition?", "How are the objects arranged?", "Describe the layout.",
            "How many objects are there in all?"],
     "ja": ["構図を教えてください。", "配置はどうなっていますか。", "全部でいくつありますか。"]},
    {"en": ["What colours and what light are there?", "Describe the colours and the light.", "What colour is it?"],
     "ja": ["色と光を教えてください。", "色合いはどうですか。", "何色ですか。"]},
    {"en": ["Write a caption.", "Write a short post about this picture.", "Give it a caption."],
     "ja": ["投稿文を書いてください。", "この画像の紹介文を書いてください。", "キャプションを付けてください。"]},
    {"en": ["What is this?", "What do you see?", "What is in the picture?", "Which objects are there?"],
     "ja": ["これは何ですか。", "何が見えますか。", "画像には何がありますか。"]},
    {"en": ["What is in the background?", "Describe the background.", "What does the background look like?"],
     "ja": ["背景は何ですか。", "背景を教えてください。", "背景はどんな様子ですか。"]},
    {"en": ["What is the atmosphere?", "Describe the mood.", "How does the picture feel?"],
     "ja": ["雰囲気を教えてください。", "どんな感じですか。", "どんな印象ですか。"]},
]

UNKNOWN_EN = """Who are you?|What is your name?|What time is it?|What day is it today?|Who is the president?|How old are you?
What is the capital of {}?|How far is it to {}?|Who lives in {}?|What is the weather in {}?|When was {} founded?
Tell me about {}.|What do you know about {}?|Explain {}.|Why is {} important?|How does {} work?|Do you like {}?
Write a poem about {}.|Write a story.|Write a program in {}.|Tell me a joke.|Translate this into {}.|Hello!|Hi|Good morning.
How much does {} cost?|Where can I buy {}?|What is the meaning of {}?|Can you help me with {}?|Who invented {}?|Is {} dangerous?
What is two plus three?|What is {} times {}?|Solve this equation.|Read the text aloud.|What does the sign say?
Who took this photograph?|When was it taken?|Where was it taken?|Which camera was used?|Who is the person?|Is she happy?
What happens next?|What is he wearing?|Give me a recipe for {}.|Recommend a book.|Summarise the news.|What is 7 + 8?
Are there any errors?|Is this art?|How heavy is it?|How long does it take?|Can I eat it?|Who painted it?|Test|asdf|Sing.""".replace("\n", "|").split("|")
TOPIC_EN = ["France", "Japan", "music", "history", "physics", "love", "money", "football", "Python", "the moon", "water",
            "the internet", "London", "Tokyo", "war", "art", "time", "a computer", "gravity", "economics", "tea", "five",
            "twelve", "German", "the law", "a house", "the sea", "my homework", "cooking", "Paris", "bread", "chess"]
UNKNOWN_JA = """あなたは誰ですか。|お名前は何ですか。|今何時ですか。|今日は何曜日ですか。|総理大臣は誰ですか。|何歳ですか。
{}の首都はどこですか。|{}まではどのくらいですか。|{}の天気はどうですか。|{}について教えてください。|{}とは何ですか。
{}を説明してください。|なぜ{}は大切なのですか。|{}は好きですか。|{}の詩を書いてください。|物語を書いてください。
冗談を言ってください。|{}に翻訳してください。|こんにちは。|おはよう|{}はいくらですか。|{}はどこで買えますか。|{}の意味は何ですか。
{}を手伝ってください。|{}は誰が発明しましたか。|{}は危険ですか。|二たす三はいくつですか。|計算してください。|文字を読んでください。
看板には何と書いてありますか。|誰が撮りましたか。|いつ撮りましたか。|どこで撮りましたか。|この人は誰ですか。|次に何が起こりますか。
{}の作り方を教えてください。|おすすめの本は何ですか。|ニュースをまとめてください。|どのくらい重いですか。|食べられますか。
誰が描きましたか。|テスト|歌ってください。|値段はいくらですか。|どう思いますか。""".replace("\n", "|").split("|")
TOPIC_JA = ["フランス", "日本", "音楽", "歴史", "物理", "愛", "お金", "サッカー", "英語", "月", "水", "インターネット", "東京",
            "戦争", "芸術", "時間", "計算機", "重力", "経済", "お茶", "法律", "家", "海", "宿題", "料理", "パン", "将棋", "京都"]


def others(language):
    """Every question that the model cannot answer, written out."""
    asks, topics = (UNKNOWN_EN, TOPIC_EN) if language == "en" else (UNKNOWN_JA, TOPIC_JA)
    result = []
    for i, ask in enumerate(asks):
        if "{}" not in ask:
            result.append(ask)
            continue
        for k in range(6):
            topic = [topics[(i * 5 + k * 3 + j * 7) % len(topics)] for j in range(ask.count("{}"))]
            result.append(ask.format(*topic))
    return sorted(set(result))
