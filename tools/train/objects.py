"""The objects that kotaro-tiny knows: one line each.

hex[,more drawings]|English|Japanese|counter|plural (only where it is not regular)

The hex name is the Unicode emoji whose drawing shows the object; a second one is another drawing of the
same thing and only trained on. Names are those a caption would use. The counter is the Japanese word
used for counting the thing.
"""

TABLE = """
1f412,1f435|monkey|猿|匹
1f98d|gorilla|ゴリラ|頭
1f415,1f436|dog|犬|匹
1f43a|wolf|オオカミ|頭|wolves
1f98a|fox|キツネ|匹|foxes
1f99d|raccoon|アライグマ|匹
1f408,1f431|cat|猫|匹
1f981|lion|ライオン|頭
1f405,1f42f|tiger|トラ|頭
1f40e,1f434|horse|馬|頭
1f984|unicorn|ユニコーン|頭
1f993|zebra|シマウマ|頭
1f98c|deer|鹿|頭|deer
1f404,1f42e|cow|牛|頭
1f416,1f437|pig|豚|匹
1f411|sheep|羊|匹|sheep
1f410|goat|ヤギ|匹
1f42b|camel|ラクダ|頭
1f992|giraffe|キリン|頭
1f418|elephant|象|頭
1f98f|rhinoceros|サイ|頭|rhinoceroses
1f99b|hippopotamus|カバ|頭|hippopotamuses
1f401,1f42d|mouse|ネズミ|匹|mice
1f439|hamster|ハムスター|匹
1f407,1f430|rabbit|ウサギ|匹
1f43f|squirrel|リス|匹
1f994|hedgehog|ハリネズミ|匹
1f987|bat|コウモリ|匹
1f43b|bear|熊|頭
1f428|koala|コアラ|匹
1f43c|panda|パンダ|頭
1f9a5|sloth|ナマケモノ|匹
1f998|kangaroo|カンガルー|匹
1f414|hen|めんどり|羽
1f413|rooster|おんどり|羽
1f424,1f425|chick|ひよこ|羽
1f427|penguin|ペンギン|羽
1f985|eagle|ワシ|羽
1f986|duck|カモ|羽
1f9a2|swan|白鳥|羽
1f989|owl|フクロウ|羽
1f9a9|flamingo|フラミンゴ|羽
1f99a|peacock|クジャク|羽
1f99c|parrot|オウム|羽
1f438|frog|カエル|匹
1f40a|crocodile|ワニ|匹
1f422|turtle|亀|匹
1f98e|lizard|トカゲ|匹
1f40d|snake|ヘビ|匹
1f409,1f432|dragon|竜|匹
1f996|dinosaur|恐竜|頭
1f433,1f40b|whale|クジラ|頭
1f42c|dolphin|イルカ|頭
1f420|tropical fish|熱帯魚|匹|tropical fish
1f421|blowfish|フグ|匹|blowfish
1f988|shark|サメ|匹
1f419|octopus|タコ|匹|octopuses
1f41a|seashell|貝がら|個
1f980|crab|カニ|匹
1f99e|lobster|ロブスター|匹
1f990|shrimp|エビ|匹|shrimp
1f991|squid|イカ|匹|squid
1f40c|snail|カタツムリ|匹
1f98b|butterfly|蝶|匹|butterflies
1f41d|bee|ミツバチ|匹
1f41e|ladybird|テントウムシ|匹
1f577|spider|クモ|匹
1f982|scorpion|サソリ|匹
1f338|cherry blossom|桜の花|輪
1f339|rose|バラ|輪
1f33a|hibiscus|ハイビスカス|輪|hibiscuses
1f33b|sunflower|ヒマワリ|輪
1f337|tulip|チューリップ|輪
1f490|bouquet|花束|束
1f332|fir tree|モミの木|本
1f334|palm tree|ヤシの木|本
1f335|cactus|サボテン|本|cactuses
1f340|four-leaf clover|四つ葉のクローバー|本
1f341|maple leaf|もみじの葉|枚|maple leaves
1f344|mushroom|キノコ|本
1f347|bunch of grapes|ぶどう|房|bunches of grapes
1f349|watermelon|スイカ|個
1f34a|orange|みかん|個
1f34b|lemon|レモン|個
1f34c|banana|バナナ|本
1f34d|pineapple|パイナップル|個
1f34e|apple|りんご|個
1f350|pear|洋なし|個
1f351|peach|桃|個|peaches
1f352|pair of cherries|さくらんぼ|房|pairs of cherries
1f353|strawberry|いちご|個|strawberries
1f95d|kiwi fruit|キウイ|個|kiwi fruits
1f345|tomato|トマト|個|tomatoes
1f965|coconut|ココナッツ|個
1f951|avocado|アボカド|個
1f346|aubergine|ナス|本
1f955|carrot|にんじん|本
1f33d|ear of corn|とうもろこし|本|ears of corn
1f336|chilli pepper|唐辛子|本
1f952|cucumber|きゅうり|本
1f966|broccoli|ブロッコリー|個|pieces of broccoli
1f950|croissant|クロワッサン|個
1f956|baguette|バゲット|本
1f968|pretzel|プレッツェル|個
1f95e|stack of pancakes|ホットケーキ|皿|stacks of pancakes
1f9c0|cheese|チーズ|個|pieces of cheese
1f357|chicken leg|鶏もも肉|本
1f953|bacon|ベーコン|枚|rashers of bacon
1f354|hamburger|ハンバーガー|個
1f35f|portion of chips|フライドポテト|個|portions of chips
1f355|pizza|ピザ|枚
1f32d|hot dog|ホットドッグ|本
1f32e|taco|タコス|個
1f95a|egg|卵|個
1f373|fried egg|目玉焼き|個
1f37f|popcorn|ポップコーン|個|tubs of popcorn
1f371|lunch box|弁当|個|lunch boxes
1f359|rice ball|おにぎり|個
1f35b|plate of curry|カレー|皿|plates of curry
1f35c|bowl of noodles|ラーメン|杯|bowls of noodles
1f35d|plate of spaghetti|スパゲッティ|皿|plates of spaghetti
1f363|sushi|寿司|貫|pieces of sushi
1f364|fried prawn|エビフライ|本
1f361|dango skewer|団子|本
1f366|soft ice cream|ソフトクリーム|個
1f367|shaved ice|かき氷|杯|bowls of shaved ice
1f369|doughnut|ドーナツ|個
1f36a|cookie|クッキー|枚
1f382|birthday cake|誕生日ケーキ|個
1f370|slice of cake|ショートケーキ|個|slices of cake
1f9c1|cupcake|カップケーキ|個
1f36b|chocolate bar|板チョコ|枚
1f36c|sweet|あめ|個
1f36d|lollipop|棒つきキャンディー|本
1f36e|custard pudding|プリン|個
1f36f|honey pot|はちみつの壺|個
1f37c|baby bottle|哺乳瓶|本
1f95b|glass of milk|牛乳|杯|glasses of milk
2615|cup of coffee|コーヒー|杯|cups of coffee
1f377|glass of wine|ワイン|杯|glasses of wine
1f379|tropical drink|トロピカルドリンク|杯
1f37a|mug of beer|ビール|杯|mugs of beer
1f964|cup with a straw|ストローつきカップ|個|cups with straws
1f52a|kitchen knife|包丁|本|kitchen knives
1f30d,1f30e,1f30f|globe|地球|個
1f5fb|snowy mountain|雪山|つ|snowy mountains
1f30b|volcano|火山|つ|volcanoes
1f3e0|house|家|軒
1f3e2|office building|ビル|棟
1f3f0|castle|西洋の城|つ
1f3ef|Japanese castle|日本の城|つ
1f5fc|Tokyo Tower|東京タワー|つ
1f5fd|Statue of Liberty|自由の女神|つ|Statues of Liberty
26ea|church|教会|つ|churches
26e9|shrine gate|鳥居|つ
26f2|fountain|噴水|つ
26fa|tent|テント|張り
1f3a1|Ferris wheel|観覧車|つ
1f682|steam engine|蒸気機関車|台
1f684,1f685|bullet train|新幹線|台
1f68c|bus|バス|台|buses
1f691|ambulance|救急車|台
1f692|fire engine|消防車|台
1f693|police car|パトカー|台
1f695|taxi|タクシー|台
1f697|car|車|台
1f69a|lorry|トラック|台|lorries
1f69c|tractor|トラクター|台
1f3ce|racing car|レーシングカー|台
1f3cd|motorcycle|オートバイ|台
1f6f5|scooter|スクーター|台
1f6b2|bicycle|自転車|台
1f6f9|skateboard|スケートボード|台
1f6a6|traffic light|信号機|台
1f6d1|stop sign|止まれの標識|つ
2693|anchor|錨|つ
26f5|sailing boat|ヨット|隻
1f6a2|ship|船|隻
2708|aeroplane|飛行機|機
1f681|helicopter|ヘリコプター|機
1f680|rocket|ロケット|機
1f6f8|flying saucer|空飛ぶ円盤|機
1f9f3|suitcase|スーツケース|個
231b,23f3|hourglass|砂時計|個|hourglasses
231a|wristwatch|腕時計|個|wristwatches
23f0|alarm clock|目覚まし時計|個
1f319|crescent moon|三日月|つ
2600,1f31e|sun|太陽|つ
1fa90|ringed planet|輪のある惑星|つ
2b50,1f31f|star|星|つ
2601|cloud|雲|つ
26c8|thundercloud|雷雲|つ
1f308|rainbow|虹|つ
2602,2614|umbrella|傘|本
2744|snowflake|雪の結晶|つ
26c4,2603|snowman|雪だるま|つ|snowmen
1f525|fire|炎|つ|fires
1f4a7|drop of water|水滴|つ|drops of water
1f30a|wave|波|つ
1f383|jack-o'-lantern|カボチャのランタン|個
1f384|Christmas tree|クリスマスツリー|本
1f388|balloon|風船|個
1f38f|carp streamer|こいのぼり|つ
1f380|ribbon|リボン|個
1f381|present|プレゼント|個
1f3c6|trophy|トロフィー|個|trophies
1f947|gold medal|金メダル|個
26bd|football|サッカーボール|個
26be|baseball|野球ボール|個
1f3c0|basketball|バスケットボール|個
1f3c8|American football|アメフトのボール|個
1f3be|tennis ball|テニスボール|個
1f3b3|bowling ball and pins|ボウリングの球とピン|組|sets of bowling ball and pins
1f94a|boxing glove|ボクシンググローブ|個
1f3bf|pair of skis|スキー板|組|pairs of skis
1f3af|target|的|つ
1fa81|kite|凧|つ
1f3b1|billiard ball|ビリヤードの玉|個
1f52e|crystal ball|水晶玉|個
1f3ae|game controller|ゲームのコントローラー|個
1f3b0|slot machine|スロットマシン|台
1f3b2|die|サイコロ|個|dice
1f9e9|puzzle piece|パズルのピース|個
1f9f8|teddy bear|テディベア|個
1f3a8|paint palette|絵の具のパレット|枚
1f9f6|ball of yarn|毛糸玉|個|balls of yarn
1f453|pair of glasses|眼鏡|個|pairs of glasses
1f576|pair of sunglasses|サングラス|個|pairs of sunglasses
1f454|necktie|ネクタイ|本
1f455|T-shirt|Tシャツ|枚
1f456|pair of jeans|ジーンズ|本|pairs of jeans
1f457|dress|ワンピース|着|dresses
1f458|kimono|着物|着
1f45c|handbag|ハンドバッグ|個
1f392|rucksack|リュック|個
1f45f|trainer|スニーカー|個
1f460|high-heeled shoe|ハイヒール|個
1f462|boot|ブーツ|個
1f451|crown|王冠|個
1f452|lady's hat|婦人帽|個|ladies' hats
1f3a9|top hat|シルクハット|個
1f393|graduation cap|角帽|個
1f9e2|cap|野球帽|個
1f484|lipstick|口紅|本
1f48d|ring|指輪|個
1f48e|gem|宝石|個
1f514|bell|ベル|個
1f4e3|megaphone|メガホン|個
1f3a4|microphone|マイク|本
1f3a7|pair of headphones|ヘッドホン|個|pairs of headphones
1f4fb|radio|ラジオ|台
1f3b7|saxophone|サックス|本
1f3ba|trumpet|トランペット|本
1f3b8|guitar|ギター|本
1f3bb|violin|バイオリン|本
1f941|drum|太鼓|個
1f4f1|mobile phone|携帯電話|台
260e|telephone|電話機|台
1f50b|battery|電池|本|batteries
1f4bb|laptop|ノートパソコン|台
1f5a8|printer|プリンター|台
1f4be|floppy disk|フロッピーディスク|枚
1f4bf|compact disc|CD|枚
1f3a5|film camera|映画カメラ|台
1f4fa|television|テレビ|台
1f4f7,1f4f8|camera|カメラ|台
1f50d,1f50e|magnifying glass|虫眼鏡|個|magnifying glasses
1f56f|candle|ろうそく|本
1f4a1|light bulb|電球|個
1f526|torch|懐中電灯|本|torches
1f3ee|red lantern|赤ちょうちん|個
1f4d6|open book|開いた本|冊
1f4da|stack of books|本の山|つ|stacks of books
1f4b0|money bag|お金の袋|袋
2709|envelope|封筒|通
1f4e6|parcel|荷物|個
1f4ee|postbox|郵便ポスト|つ|postboxes
270f|pencil|鉛筆|本
1f4cc|drawing pin|画びょう|個
2702|pair of scissors|はさみ|丁|pairs of scissors
1f511|key|鍵|本
1f512|padlock|錠前|個
1f528|hammer|金づち|本
1f4a3|bomb|爆弾|個
1f3f9|bow and arrow|弓矢|組|bows and arrows
1f6e1|shield|盾|枚
1f527|spanner|スパナ|本
2699|gear|歯車|個
1f9f2|magnet|磁石|個
1f9ea|test tube|試験管|本
1f52c|microscope|顕微鏡|台
1f52d|telescope|望遠鏡|台
1f489|syringe|注射器|本
1f48a|pill|薬|錠
1f6aa|door|ドア|枚
1f6cf|bed|ベッド|台
1fa91|chair|椅子|脚
1f6c1|bathtub|浴槽|つ
1f9f9|broom|ほうき|本
1f6d2|shopping cart|買い物カート|台
1f5ff|moai statue|モアイ像|つ
"""


def load():
    """The table as a list of dicts: hex, more (list of hex), en, plural, ja, counter."""
    objects = []
    for line in TABLE.strip().splitlines():
        field = line.split("|")
        drawings = field[0].split(",")
        plural = field[4] if len(field) > 4 else field[1] + "s"
        objects.append(
            {
                "hex": drawings[0],
                "more": drawings[1:],
                "en": field[1],
                "plural": plural,
                "ja": field[2],
                "counter": field[3],
            }
        )
    return objects


if __name__ == "__main__":
    known = load()
    print(len(known), "objects")
    for key in ("hex", "en", "ja", "plural"):
        assert len({o[key] for o in known}) == len(known), key
